"""A pretrained net, the trial from scratch beside it, and what is left if the trial is better."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from torch import Tensor, nn

from lamina import (
    Dataset,
    Epoch,
    Images,
    LaminaError,
    Parts,
    Preparation,
    Recipe,
    Report,
    load_data,
    load_run,
)
from lamina.data.load import resize_dataset
from lamina.nets import parse_net
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import Considered, OwnModule
from lamina.runs.run import Run
from lamina.studies.choose import (
    SIDES_PX,
    ConsideredNets,
    ScratchTrial,
    _iter_pretrained,
    choose,
    choose_body,
    iter_chosen,
    try_from_scratch,
)
from lamina.studies.experiment import Candidate, Deadline, Decision, Experiment, Request
from lamina.studies.study import RecipeDecision, RunSetup, Started
from lamina.studies.train_net import train
from lamina.training.events import FeatureProgress, HeadFit
from lamina.training.pretrained import TimmNet, open_timm_net
from lamina.training.timing import Pace
from support.timm_weights import save_random

SMALL = parse_net("Flatten(), Output()")


def bright(side_px: int = 8) -> Dataset:
    """Bright and dark images, 20 or more of each split."""
    generator = np.random.default_rng(0)

    def images(count: int) -> Images:
        targets = np.arange(count) % 2
        noise = generator.integers(0, 100, (count, side_px, side_px, 3))
        return Images.from_arrays(
            (noise + 120 * targets[:, None, None, None]).astype(np.uint8), targets
        )

    return Dataset.from_images(images(60), images(20), images(30))


class Features(nn.Module):
    """A pretrained net whose features are the pixels, or which sees nothing."""

    def __init__(self, *, is_blind: bool) -> None:
        super().__init__()
        self.head, self.factor = nn.Linear(3 * 16**2, 2), 0.0 if is_blind else 1.0

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.factor * images.flatten(1))


FITTED = Recipe(epochs=2, batch_size=10, head="fitted", initial_fraction=0.5, schedule="trapezoid")
SLOW = Pace(train_seconds=10.0, evaluation_seconds=1e-5)
"""So slow that one epoch fills the time, which no training of these tests uses up."""


def iter_pretrained(
    runs_dir: Path,
    *,
    is_blind: bool,
    fitted: bool = True,
    seconds: float = 1000.0,
    **given: object,
) -> Generator:
    """The events of a pretrained net, beside which a trial from scratch runs."""
    recipe = FITTED if fitted else replace(FITTED, head="random")
    net = NetChoice(
        "own", lambda *_: Features(is_blind=is_blind), {"default": recipe}, OwnModule("", "own")
    )
    candidate = Candidate(Experiment(net, recipe, bright()), 16, SLOW)
    return _iter_pretrained(
        candidate,
        (Considered("own", 16, 2, 1.0, "chosen"),),
        Deadline(perf_counter(), seconds),
        Request(given=given),
        RunSetup(runs_dir, "mine"),
    )


def collect(events: Generator) -> tuple[list, Run | None]:
    """The events, and what the generator returns."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as stop:
            return seen, stop.value


@pytest.mark.slow
def test_a_pretrained_net_that_a_trial_beats_is_given_up(tmp_path):
    events, run = collect(iter_pretrained(tmp_path, is_blind=True, epochs=30))
    trial = events[-1]
    assert trial.is_better
    assert trial.images == 20  # a third of those that the head was fitted to
    assert trial.loss < 0.5 < trial.head_loss
    assert any(isinstance(event, Started) for event in events)
    assert run is None
    assert not list(tmp_path.iterdir())


def test_leaving_the_loop_before_the_trial_leaves_a_run_that_can_be_resumed(tmp_path):
    events = iter_pretrained(tmp_path, is_blind=False)
    for event in events:
        if isinstance(event, FeatureProgress):
            break
    events.close()
    run = load_run(tmp_path / "mine", module=Features(is_blind=False))
    assert run.train(data=resize_dataset(bright(), 16), progress=False) is not None


def test_a_pretrained_net_that_is_better_stays_and_is_evaluated(tmp_path):
    # a net from scratch learns nothing
    events, kept = collect(iter_pretrained(tmp_path, is_blind=False, epochs=1, lr=1e-9))
    assert kept.path == tmp_path / "mine"
    (trial,) = (event for event in events if isinstance(event, ScratchTrial))
    assert not trial.is_better
    shown = [type(event) for event in events if not isinstance(event, FeatureProgress)]
    assert shown[: shown.index(ScratchTrial)] == [
        Decision,
        ConsideredNets,
        RecipeDecision,
        Started,
        HeadFit,
    ]
    assert isinstance(events[-1], Report)
    run = load_run(tmp_path / "mine", module=Features(is_blind=False))
    assert run.report == events[-1]
    assert [one.verdict for one in run.record.considered] == ["chosen"]
    assert trial.side_px == 16
    assert trial.net == "cnn-s"


def test_without_a_fitted_head_the_pretrained_net_is_trained_at_once(tmp_path):
    events, run = collect(iter_pretrained(tmp_path, is_blind=False, fitted=False))
    shown = [type(event) for event in events]
    assert shown[:4] == [Decision, ConsideredNets, RecipeDecision, Started]
    assert ScratchTrial not in shown
    assert events[-1] == run.report


@pytest.mark.parametrize("given", [{"translate_px": 16}, {"dropout": 0.5}], ids=str)
def test_a_trial_that_cannot_run_leaves_the_pretrained_net(tmp_path, given):
    events, _ = collect(iter_pretrained(tmp_path, is_blind=True, **given))
    assert not any(isinstance(event, ScratchTrial) for event in events)
    assert isinstance(events[-1], Report)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


class Recorder(nn.Module):
    """A net from scratch that records the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.trained, self.evaluated = nn.Linear(3, 2), set(), set()

    def forward(self, images: Tensor) -> Tensor:
        shades = images.mean((2, 3))
        (self.trained if self.training else self.evaluated).update(shades[:, 0].tolist())
        return self.linear(shades)


@pytest.mark.parametrize("rows", [np.arange(60), np.arange(0, 60, 2), np.arange(7)], ids=len)
def test_a_trial_is_never_trained_on_the_images_that_it_is_compared_on(rows):
    pixels = np.broadcast_to(
        np.arange(0, 240, 4, dtype=np.uint8)[:, None, None, None], (60, 8, 8, 3)
    )
    dataset = Dataset.from_images(Images.from_arrays(pixels.copy(), np.arange(60) // 30))
    made: list[Recorder] = []

    def make(*_: object) -> nn.Module:
        made.append(Recorder())
        return made[-1]

    recipe = Recipe(epochs=3, batch_size=10)
    candidate = Candidate(
        Experiment(NetChoice("own", make, {"default": recipe}), recipe, dataset), 8
    )
    fit = HeadFit(60, 5, 1.0, 0.7, 0.5, 1.0, rows, np.zeros((len(rows), 2), np.float32))
    trial = try_from_scratch(candidate, fit, 20.0)
    assert trial.images == len(rows[::3])
    assert trial.head_loss == pytest.approx(np.log(2))
    trained, held = (made[-1].trained, made[-1].evaluated)
    assert len(trained) == 60 - trial.images
    # Besides the held-out images, a new module is tried on an empty image.
    assert len(held - trained) in (trial.images, trial.images + 1)


@pytest.mark.parametrize("count", [1, 3])
def test_without_images_there_is_no_trial(count):
    recipe = Recipe(epochs=3, batch_size=10)
    candidate = Candidate(
        Experiment(NetChoice("small", SMALL, {"default": recipe}), recipe, bright()), 8
    )
    fit = HeadFit(60, 5, 1.0, 0.7, 0.5, 1.0, np.arange(count), np.zeros((count, 2), np.float32))
    assert try_from_scratch(candidate, fit, 20.0) is None


@pytest.mark.parametrize(
    ("loss", "head_loss", "standard_error", "is_better"),
    [
        (0.5, 0.8, 0.1, True),
        (0.5, 0.8, 0.2, True),  # in a small part of the time
        (0.8, 0.5, 0.01, False),
        (0.5, 0.5, 0.0, False),
        (float("nan"), 0.5, 0.1, False),
    ],
)
def test_from_scratch_has_to_have_the_lower_loss(loss, head_loss, standard_error, is_better):
    trial = ScratchTrial("cnn-s", 32, 4.2, 166, loss, head_loss, standard_error)
    assert trial.is_better == is_better
    assert str(trial).endswith(
        "random weights are better" if is_better else "the pretrained net is kept"
    )


def test_what_is_printed_of_a_trial():
    assert (
        str(ScratchTrial("cnn-s", 32, 4.2, 1166, 0.5, 0.8, 0.1))
        == "trial: cnn-s from random weights at 32 px for 4 s: loss 0.500 on 1,166 held-out images,"
        " fitted head 0.800 (standard error of the difference 0.100): random weights are better"
    )


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[TimmNet]:
    folder = tmp_path_factory.mktemp("bodies")
    return [
        open_timm_net(name, str(save_random(name, folder / f"{name}.safetensors")), print)
        for name in ("test_efficientnet", "test_resnet")
    ]


@pytest.mark.slow
def test_with_enough_time_the_most_expensive_body_and_size_are_chosen(bodies):
    chosen, considered = choose_body(bodies, bright(64), Deadline(perf_counter(), 1e6), {"lr": 0.5})
    assert chosen.side_px == SIDES_PX[-1]
    assert [one.verdict for one in considered].count("chosen") == 1
    assert considered[-1].net_name == chosen.experiment.net.name
    assert {one.net_name for one in considered} == {net.net_name for net in bodies}
    assert (chosen.recipe.lr, chosen.recipe.head, chosen.is_open) == (0.5, "fitted", True)
    assert chosen.pace.train_seconds > 0


def test_without_time_no_body_is_chosen(bodies):
    chosen, considered = choose_body(bodies, bright(64), Deadline(perf_counter(), 1.0), {})
    assert chosen is None
    assert [(one.side_px, one.verdict) for one in considered] == [(SIDES_PX[0], "too slow")] * 2


def test_a_size_and_a_schedule_that_are_given_stay(bodies):
    dataset = replace(bright(48), preparation=Preparation(size_px=48))
    chosen, considered = choose_body(
        bodies[:1],
        dataset,
        Deadline(perf_counter(), 1e6),
        {"schedule": "cosine", "initial_fraction": 0.2},
    )
    assert [one.side_px for one in considered] == [chosen.side_px] == [48]
    assert (chosen.recipe.schedule, chosen.recipe.initial_fraction, chosen.is_open) == (
        "cosine",
        0.2,
        False,
    )


@pytest.mark.slow
def test_arrays_are_resized_to_the_size_that_is_chosen_and_can_be_used_again(tmp_path):
    dataset = bright()
    events = list(
        choose(dataset, given={"epochs": 1}, pretrained=False, name="mine", runs_dir=tmp_path)
    )
    sizes = [event for event in events if isinstance(event, Decision) and event.what == "size"]
    assert [str(event) for event in sizes] == ["size: 16 px (the images are 8 px, enlarged)"]
    run = load_run(tmp_path / "mine")
    assert run.record.in_shape == (3, 16, 16)
    assert run.evaluate(data=dataset).accuracy == events[-1].accuracy


@pytest.mark.slow
def test_a_limit_that_is_over_once_the_data_are_read_does_not_concern_epochs_that_are_given(
    tmp_path,
):
    events = iter_chosen(
        bright(16),
        Request(given={"epochs": 1}, pretrained=False),
        Deadline(perf_counter() - 1010, 10.0),
        RunSetup(tmp_path),
    )
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1]


@pytest.mark.slow
def test_data_with_a_source_is_loaded_again_unless_it_was_changed_since():
    whole = load_data("shapes", Preparation(size_px=8))
    again = resize_dataset(whole, 12)
    assert np.array_equal(
        again.train.pixels, load_data("shapes", Preparation(size_px=12)).train.pixels
    )
    part = Dataset(
        "part", "abc", whole.train.take(range(5)), source="shapes", preparation=whole.preparation
    )
    resized = resize_dataset(part, 12)
    assert resized.train.pixels.shape == (5, 12, 12, 3)
    assert resized.preparation == again.preparation


def test_train_gives_a_run_that_is_trained_and_evaluated(tmp_path):
    run = train(
        bright(),
        net="mlp",
        recipe=Recipe(epochs=2, seed=3),
        name="mine",
        runs_dir=tmp_path,
        progress=False,
    )
    assert run.report.split == "test"
    assert (run.record.recipe.epochs, run.record.recipe.seed) == (2, 3)
    own = train(bright(), net=SMALL, recipe=Recipe(epochs=1), runs_dir=tmp_path, progress=False)
    assert own.record.net_name == "net"


def test_train_shows_what_it_does(tmp_path, capsys):
    train(bright(), net="mlp", recipe="article", runs_dir=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data: ")
    assert lines[1].startswith("recipe: epochs ")
    assert lines[2].startswith("net: mlp, ")
    assert lines[-1].startswith("test accuracy ")


def double(logits, targets):
    return 2 * nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("more", [{"net": "mlp"}, {"net": "mlp", "seconds": 6}, {"seconds": 6}])
def test_own_parts_train_with_every_way_to_choose(tmp_path, more):
    parts = Parts(loss=double, schedule=lambda done: 1 - done)
    run = train(bright(), parts=parts, runs_dir=tmp_path, progress=False, **more)
    assert run.record.parts["loss"].endswith("double")
    assert (run.record.recipe.schedule, run.record.recipe.label_smoothing) == ("constant", 0.0)
    assert run.report is not None


def test_a_recipe_that_is_given_has_the_most_epochs_that_train_trains(tmp_path, capsys):
    run = train(bright(), net=SMALL, recipe=Recipe(epochs=2), seconds=60, runs_dir=tmp_path)
    assert run.record.recipe == Recipe(epochs=2)
    printed = capsys.readouterr().out
    assert re.search(
        r"^time: 60 s → 2 epochs of \S+ s each \(the recipe has 2\)$", printed, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "best"}, r"^recipe needs a net\."),
        ({"net": "cnn", "recipe": "bst"}, r"^cnn has no recipe 'bst'\. Did you mean best\?"),
        (
            {"net": "cnn", "seconds": 0.0},
            r"^seconds is 0\.0; it must be positive and finite\. Use seconds=180\.$",
        ),
        ({"seconds": -1.0}, r"^seconds is -1\.0; it must be positive"),
        ({"net": "none"}, r"^There is no net 'none' in the zoo\."),
    ],
)
def test_arguments_that_do_not_go_together_are_named_as_python_has_them(
    tmp_path, arguments, message
):
    with pytest.raises(LaminaError, match=message):
        train(bright(), runs_dir=tmp_path, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_given_is_checked_before_anything_is_loaded():
    for given, message in (
        ({"lr": -1.0}, "^lr "),
        ({"rate": 0.1}, "^Recipe: unknown argument 'rate'"),
    ):
        with pytest.raises(LaminaError, match=message):
            choose("nowhere", given=given)
