"""A pretrained net, the trial from scratch beside it, and what is left if the trial is better."""

from __future__ import annotations

import itertools
import re
from contextlib import closing
from dataclasses import replace
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
    load_data,
    load_run,
)
from lamina.data.load import resize_dataset
from lamina.nets import parse_net
from lamina.runs.nets_by_name import NetChoice
from lamina.studies.candidates import fit_candidate
from lamina.studies.choose import (
    LEAST_TRIAL_SECONDS,
    SIDES_PX,
    TIMED_SIDE_PX,
    ConsideredNets,
    ScratchTrial,
    choose,
    choose_body,
    compare_trials,
    has_time_for_head,
    iter_chosen,
    time_pretrained,
    try_from_scratch,
)
from lamina.studies.experiment import Candidate, Deadline, Decision, Experiment, Request
from lamina.studies.study import RunSetup, Started
from lamina.studies.train_net import train
from lamina.training.pretrained import TimmNet, find_all_at_hand, open_timm_net
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


def try_both(*, is_blind: bool, count: int = 60, **given: object) -> ScratchTrial | None:
    """Trials of a pretrained net and from scratch on bright and dark images."""
    net = NetChoice("own", lambda *_: Features(is_blind=is_blind))
    dataset = replace(bright(), preparation=Preparation(size_px=16))
    dataset = replace(dataset, train=dataset.train.take(range(count)))
    pretrained = fit_candidate(net, dataset, given, side_px=16)
    return compare_trials(pretrained, Deadline(perf_counter(), 1000.0), given)


def test_a_pretrained_net_that_sees_nothing_is_worse_than_a_net_from_scratch():
    trial = try_both(is_blind=True, epochs=30)
    assert trial.is_better
    assert (trial.head_images, trial.images) == (40, 20)
    assert trial.loss < 0.5 < trial.head_loss
    assert (trial.net, trial.side_px) == ("cnn-s", 16)


def test_a_pretrained_net_is_better_than_a_net_that_learns_nothing():
    trial = try_both(is_blind=False, epochs=1, lr=1e-9)
    assert not trial.is_better
    assert trial.head_loss < 0.5 < trial.loss


@pytest.mark.parametrize("given", [{"translate_px": 16}, {"count": 1}, {"count": 3}], ids=str)
def test_a_trial_that_cannot_run_compares_nothing(given):
    assert try_both(is_blind=True, **given) is None


class Recorder(nn.Module):
    """A net from scratch that records the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.trained, self.evaluated = nn.Linear(3, 2), set(), set()

    def forward(self, images: Tensor) -> Tensor:
        shades = images.mean((2, 3))
        (self.trained if self.training else self.evaluated).update(shades[:, 0].tolist())
        return self.linear(shades)


@pytest.mark.parametrize("groups", [(), tuple(str(row // 2) for row in range(60))], ids=bool)
def test_a_net_from_scratch_is_never_trained_on_the_images_that_it_is_compared_on(groups):
    pixels = np.broadcast_to(
        np.arange(0, 240, 4, dtype=np.uint8)[:, None, None, None], (60, 8, 8, 3)
    )
    images = Images.from_arrays(pixels.copy(), np.arange(60) // 30)
    dataset = Dataset.from_images(replace(images, groups=groups))
    made: list[Recorder] = []

    def make(*_: object) -> nn.Module:
        made.append(Recorder())
        return made[-1]

    recipe = Recipe(epochs=3, batch_size=10)
    net = NetChoice("own", make, {"default": recipe})
    candidate = Candidate(Experiment(net, recipe, dataset), 8)
    held = np.array([3, 10, 50])
    logits = try_from_scratch(candidate, held, perf_counter() + 20)
    assert logits.shape == (3, 2)
    trained = made[-1].trained
    left_out = {2, 3, 10, 11, 50, 51} if groups else {3, 10, 50}
    assert len(trained) == 60 - len(left_out)


@pytest.mark.parametrize(
    ("loss", "head_loss", "standard_error", "is_better"),
    [
        (0.5, 0.8, 0.1, True),
        (0.6, 0.8, 0.01, False),  # training all layers makes up for it
        (0.8, 0.5, 0.01, False),
        (0.0, 0.0, 0.0, False),
        (float("nan"), 0.5, 0.1, False),
    ],
)
def test_from_scratch_has_to_have_a_clearly_lower_loss(loss, head_loss, standard_error, is_better):
    trial = ScratchTrial("cnn-s", 32, 4.2, 166, loss, 333, head_loss, standard_error)
    assert trial.is_better == is_better
    assert str(trial).endswith(
        "random weights are better" if is_better else "the pretrained net is chosen"
    )


def test_what_is_printed_of_a_trial():
    assert (
        str(ScratchTrial("cnn-s", 32, 4.2, 1166, 0.5, 2333, 0.8, 0.1))
        == "trials of 4.2 s: cnn-s from random weights at 32 px: loss 0.500 on 1,166 held-out"
        " images; pretrained, head fitted to 2,333 images: 0.800 (standard error of the difference"
        " 0.100): random weights are better"
    )


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[TimmNet]:
    folder = tmp_path_factory.mktemp("bodies")
    return [
        open_timm_net(name, str(save_random(name, folder / f"{name}.safetensors")), print)
        for name in ("test_efficientnet", "test_resnet")
    ]


def test_with_enough_time_the_most_expensive_body_and_size_are_chosen(bodies):
    timed = time_pretrained(bodies[0], bright(64), {"lr": 0.5})
    chosen, considered = choose_body(timed, bodies, Deadline(perf_counter(), 1e6), {"lr": 0.5})
    assert chosen.side_px == SIDES_PX[-1]
    assert [one.verdict for one in considered].count("chosen") == 1
    assert considered[-1].net_name == chosen.experiment.net.name
    assert {one.net_name for one in considered} == {net.net_name for net in bodies}
    assert (chosen.recipe.lr, chosen.recipe.head, chosen.is_open) == (0.5, "fitted", True)
    assert chosen.pace.train_seconds > 0


@pytest.mark.parametrize(("own_px", "least_px"), [(64, TIMED_SIDE_PX), (12, SIDES_PX[0])])
def test_without_time_no_body_is_chosen(bodies, own_px, least_px):
    timed = time_pretrained(bodies[0], bright(own_px), {})
    chosen, considered = choose_body(timed, bodies, Deadline(perf_counter(), 1.0), {})
    assert chosen is None
    assert [(net.side_px, net.verdict) for net in considered] == [(least_px, "too slow")] * 2


def test_time_is_reserved_for_the_trials(bodies):
    timed = time_pretrained(bodies[0], bright(64), {})

    def has_time(seconds: float) -> bool:
        return has_time_for_head(timed, Deadline(perf_counter(), seconds))

    # without trials
    least = next(
        seconds
        for seconds in np.arange(0.5, 100, 0.1)
        if choose_body(timed, bodies[:1], Deadline(perf_counter(), seconds), {})[0] is not None
    )
    assert not has_time(least + 0.9 * LEAST_TRIAL_SECONDS)
    assert has_time(2 * (least + LEAST_TRIAL_SECONDS))


@pytest.mark.skipif(not find_all_at_hand(), reason="no pretrained net is installed")
def test_a_pretrained_net_whose_head_would_take_too_long_is_not_tried(tmp_path):
    dataset = load_data("shapes")
    rows = np.arange(20_000) % len(dataset.train)
    dataset = replace(dataset, train=dataset.train.take(rows))
    with closing(choose(dataset, seconds=40, runs_dir=tmp_path)) as events:
        before = list(itertools.takewhile(lambda event: not isinstance(event, Started), events))
    assert not any(isinstance(event, ScratchTrial) for event in before)
    (decision,) = [event for event in before if str(event).startswith("pretrained: ")]
    assert str(decision).endswith("not used: it would take too long")
    (table,) = [event for event in before if isinstance(event, ConsideredNets)]
    first = table.candidates[0]
    assert (first.side_px, first.verdict) == (TIMED_SIDE_PX, "too slow")


def test_a_size_and_a_schedule_that_are_given_stay(bodies):
    dataset = replace(bright(48), preparation=Preparation(size_px=48))
    settings = {"schedule": "cosine", "initial_fraction": 0.2}
    timed = time_pretrained(bodies[0], dataset, settings)
    chosen, considered = choose_body(timed, bodies[:1], Deadline(perf_counter(), 1e6), settings)
    assert [one.side_px for one in considered] == [chosen.side_px] == [48]
    assert (chosen.recipe.schedule, chosen.recipe.initial_fraction, chosen.is_open) == (
        "cosine",
        0.2,
        False,
    )


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
    printed = capsys.readouterr().out.splitlines()
    # the number of threads depends on the machine
    lines = [line for line in printed if not line.startswith("threads: ")]
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
