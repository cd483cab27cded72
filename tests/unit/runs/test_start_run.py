"""``start_run``: the net, the recipe and the data that are given, or chosen."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from dataclasses import dataclass
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

import lamina
from lamina import Epoch, Recipe, load_recipe, load_run, start_run
from lamina.data import Dataset, Images
from lamina.errors import LaminaError, NetError, RecipeError, RunError
from lamina.nets import Flatten, Layer, Net, Output, Residual
from lamina.runs.run import list_runs
from lamina.studies.image_sizes import choose_by_images
from lamina.training.custom import find_ignored
from lamina.training.recipe import fit_recipe
from support.runs import DATA, NET, RECIPE
from support.trainings import same


def own_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.mark.parametrize(
    "net", [NET, own_module(), "Flatten(), Output()"], ids=["net", "module", "layers"]
)
def test_a_net_without_a_recipe_has_one_fitted_to_the_images(net, tmp_path):
    run = start_run(DATA, net, runs_dir=tmp_path)
    assert run.record.recipe == fit_recipe(Recipe(), 12, 6, DATA.train.kind) != Recipe()
    assert run.record.net_name == ("Sequential" if isinstance(net, nn.Module) else "net")


def test_a_function_makes_the_net_from_the_seed_of_the_recipe(tmp_path):
    def small() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))

    runs = [
        start_run(DATA, small, dataclasses.replace(RECIPE, seed=seed), runs_dir=tmp_path)
        for seed in (1, 1, 2)
    ]
    first, again, other = (run.module.state_dict() for run in runs)
    assert same(first, again) and not same(first, other)
    assert runs[0].record.net_name == runs[0].record.own_module.name == "small"
    stored = start_run(DATA, lambda: NET, RECIPE, runs_dir=tmp_path)
    assert stored.record.net is not None and stored.module is None
    with pytest.raises(NetError, match=r"\(missing a required argument: 'width'\)\. Pass a Net"):
        start_run(DATA, lambda width: NET, RECIPE, runs_dir=tmp_path)


def test_a_recipe_has_a_name_and_own_parts_replace_its_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    images = DATA.train
    named = load_recipe("cnn-s", "quick")
    run = start_run(squares(32, 32), "cnn-s", "quick", runs_dir=tmp_path)
    assert run.record.recipe == fit_recipe(named, 6, 32, images.kind)
    parts = lamina.Parts(loss=nn.functional.cross_entropy, schedule=lambda done: 1 - done)
    run = start_run(squares(32, 32), "cnn", "article", parts=parts, runs_dir=tmp_path)
    assert run.record.recipe == dataclasses.replace(
        load_recipe("cnn", "article"), **find_ignored(parts)
    )
    with pytest.raises(RecipeError, match=r"^cnn has no recipe 'bst'\. Did you mean best\?"):
        start_run(DATA, "cnn", "bst", runs_dir=tmp_path)
    for call in (start_run, partial(load_run, run.path)):
        with pytest.raises(LaminaError, match=r"^parts must be your own functions, as in Parts\("):
            call(parts=nn.functional.cross_entropy)


def squares(side_px: int, original_px: int, size_px: int | None = None) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (6, side_px, side_px, 3), np.uint8)
    images = Images.from_arrays(pixels, np.arange(6) % 2)
    sizes = np.full((6, 2), original_px, np.int32)
    return Dataset(
        "squares", "0", dataclasses.replace(images, original_sizes_px=sizes), size_px=size_px
    )


@pytest.mark.parametrize(
    ("data", "net"),
    [
        (squares(8, 8), "mlp"),
        (squares(8, 500, size_px=8), "mlp"),
        (squares(12, 12), "cnn-s"),
        (squares(32, 500, size_px=32), "cnn-s"),
        (squares(64, 70, size_px=64), "cnn-s"),
        (squares(64, 500, size_px=64), "photo-s"),
        (squares(160, 160), "photo-s"),
    ],
)
def test_the_net_that_is_not_named_suits_the_images(data, net):
    assert choose_by_images(data) == net


def test_a_run_needs_a_net(tmp_path):
    with pytest.raises(NetError, match=r"^start_run needs a net, .* lamina\.train\(data\)\.$"):
        start_run(DATA, runs_dir=tmp_path)


def test_a_name_brings_the_zoos_net_recipe_and_data(tmp_path):
    run = start_run("shapes-pose", "cnn-s", runs_dir=tmp_path)
    assert run.record.net_name == "cnn-s"
    # numbers allow neither
    assert (run.record.recipe.label_smoothing, run.record.recipe.flip) == (0.0, "off")
    assert run.record.data.source == "shapes-pose"
    assert {file.name for file in run.path.iterdir()} == {".lock", "run.json"}  # nothing is trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"net": 3},
            "net is 3 (3 is not a callable object). Pass a Net, the name or layers of a net, a"
            " module, or a function without arguments that makes the net, such as lambda:"
            " MyNet(64).",
        ),
        (
            {"net": NET, "data": [1]},
            "data must be a Dataset, Images, or the name or path of a data set "
            "(for arrays, use Images.from_arrays(x, y)), got list.",
        ),
        (
            {"net": NET, "data": DATA, "recipe": 3},
            "recipe must be a Recipe, such as Recipe(epochs=5), or the name of one of the net's"
            " recipes, got int.",
        ),
    ],
)
def test_arguments_of_other_types_are_rejected_in_one_message(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(LaminaError) as rejected:
        start_run(**arguments, runs_dir=tmp_path / "runs")
    assert str(rejected.value) == message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: lamina.train(DATA, net=3),
            "net is 3 (3 is not a callable object). Pass a Net, the name or layers of a net",
        ),
        (
            lambda run: lamina.train(DATA, net=NET, recipe=3),
            "recipe must be a Recipe, such as Recipe(epochs=5), or the name of one of the net's",
        ),
        (
            lambda run: lamina.train(5),
            "data must be a Dataset, Images",
        ),
        (
            lambda run: lamina.train(DATA, seconds="3m"),
            "seconds must be a number, such as 180, got str.",
        ),
        (
            lambda run: lamina.train(DATA, recipe="best"),
            'recipe needs a net. Add one, as in train(data, "cnn-s", "best").',
        ),
        (
            lambda run: run.train(data=5),
            "source must be the name or path of a data set (for arrays, use",
        ),
    ],
)
def test_arguments_of_other_types_are_named(call, message, tmp_path, monkeypatch):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaminaError) as rejected:
        call(run)
    assert str(rejected.value).startswith(message)


@dataclass(frozen=True)
class Power(Layer):
    """A layer of one's own, under the name of none of lamina's."""

    exponent: float = 2.0

    def module(self, in_shape):
        return Raise(self.exponent)


class Raise(nn.Module):
    def __init__(self, exponent):
        super().__init__()
        self.exponent = exponent

    def forward(self, given):
        return given**self.exponent


@dataclass(frozen=True)
class Tanh(Power):
    """Another, under the name of one of lamina's."""


@pytest.mark.parametrize("own", [(Power(),), (Residual(Power(3.0)),), (Tanh(),)])
def test_a_net_with_own_layers_is_passed_again(own, tmp_path):
    net = Net(Flatten(), *own, Output())
    assert net.own_layers
    begun = start_run(DATA, net, RECIPE, runs_dir=tmp_path)
    with contextlib.closing(begun.iter_train()) as events:
        next(event for event in events if isinstance(event, Epoch))
    run = load_run(begun.path)
    assert [one.path for one in list_runs(tmp_path)] == [run.path]
    given_again = f"Pass it again with load_run(path, module={net!r})."
    for use in (run.train, run.load_model, run.evaluate):
        arguments = {} if use == run.load_model else {"data": DATA}
        with pytest.raises(RunError, match=re.escape(given_again)):
            use(**arguments)
    with pytest.raises(
        RunError, match=r"^module is Net\(.*Power\(exponent=4\.0\).*, but .* was trained with Net\("
    ):
        load_run(run.path, module=Net(Flatten(), Power(4.0), Output())).train(data=DATA)
    run = load_run(run.path, module=net)
    run.train(data=DATA, progress=False)
    whole = start_run(DATA, net, RECIPE, runs_dir=tmp_path)
    whole.train(progress=False)
    assert same(*(one.load_model().state_dict() for one in (run, whole)))
    assert run.load_model().net == net.with_outputs(3)


def test_a_module_that_cannot_be_copied_is_rejected(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    module.lock = threading.Lock()
    with pytest.raises(NetError) as rejected:
        start_run(DATA, module, RECIPE, runs_dir=tmp_path)
    assert (
        str(rejected.value)
        == "A run trains a copy of the net, but Sequential cannot be copied (TypeError: cannot"
        " pickle '_thread.lock' object). Store tensors as parameters or buffers, and keep files"
        " and locks out of the module."
    )
