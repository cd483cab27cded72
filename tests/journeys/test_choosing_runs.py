"""Trials, a fitted head, and trainings within a time, with small nets and images."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import replace

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
    start_run,
    train,
)
from lamina.data.load import resize_dataset
from lamina.nets import parse_net
from lamina.runs.start import NetChoice
from lamina.studies.choosing import (
    ScratchTrial,
    compare_trials,
    count_work,
    propose,
    propose_pretrained,
    try_on,
)
from lamina.studies.experiment import Candidate, Deadline, Decision, Experiment, Request
from lamina.studies.study import RunSetup
from lamina.studies.train_net import iter_training
from lamina.training.events import Remark
from lamina.training.pretrained import TimmNet, open_timm_net
from lamina.training.timing import Pace
from support.timm_weights import save_random

pytestmark = pytest.mark.usefixtures("ticking_clock")
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


FITTED = Recipe(epochs=3, batch_size=16, head="fitted", initial_fraction=0.5)


def compare(
    *, is_blind: bool, count: int = 60, seconds: float = 20.0, **given: object
) -> ScratchTrial | None:
    """Trials of a pretrained net and from scratch on bright and dark images."""
    dataset = replace(bright(), preparation=Preparation(size_px=16))
    dataset = replace(dataset, train=dataset.train.take(range(count)))
    net = NetChoice("own", lambda *_: Features(is_blind=is_blind))
    pretrained = Candidate(Experiment(net, FITTED, dataset), 16, Pace(1e-3, 1e-3))
    return compare_trials(pretrained, propose(dataset, given)[0], seconds)


def test_a_pretrained_net_that_sees_nothing_is_worse_than_a_net_from_scratch():
    trial = compare(is_blind=True)
    assert trial.is_better
    assert (trial.head_images, trial.images) == (40, 20)
    assert trial.loss < 0.5 < trial.head_loss
    assert (trial.net, trial.side_px) == ("cnn-s", 16)


def test_a_pretrained_net_is_better_than_a_net_that_learns_nothing():
    trial = compare(is_blind=False, lr=1e-9, seconds=1.0)
    assert not trial.is_better
    assert trial.head_loss < 0.5 < trial.loss


def test_a_schedule_that_is_given_does_not_cut_the_trial():
    """Otherwise, the net is compared at its peak learning rate."""
    assert compare(is_blind=True, schedule="linear", epochs=1000).is_better


@pytest.mark.parametrize("given", [{"translate_px": 16}, {"count": 1}, {"count": 3}], ids=str)
def test_a_trial_that_cannot_run_compares_nothing(given):
    assert compare(is_blind=True, **given) is None


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
    scratch = Candidate(Experiment(net, recipe, dataset), 8)
    pretrained = Experiment(NetChoice("own", make), replace(FITTED, epochs=1), dataset)
    trial = compare_trials(Candidate(pretrained, 8, Pace(1e-3, 1e-3)), scratch, 1.0)
    of_head, of_scratch = made
    assert trial.images == len(of_scratch.evaluated - of_scratch.trained)
    assert not of_scratch.trained & (of_head.evaluated - of_scratch.trained)
    assert len(of_scratch.trained) == 60 - trial.images


@pytest.mark.parametrize(
    ("loss", "head_loss", "is_better"),
    [
        (0.5, 0.8, True),
        (0.6, 0.8, False),  # training all layers makes up for it
        (0.8, 0.5, False),
        (0.0, 0.0, False),
        (float("nan"), 0.5, False),
    ],
)
def test_from_scratch_has_to_have_a_clearly_lower_loss(loss, head_loss, is_better):
    trial = ScratchTrial("cnn-s", 32, 166, loss, 333, head_loss)
    assert trial.is_better == is_better
    verdict = "random weights are better" if is_better else "the pretrained net is chosen"
    assert str(trial).endswith(verdict)


def test_the_losses_of_a_trial_are_those_of_the_held_out_images():
    dataset = bright(16)
    net = NetChoice("own", lambda *_: Features(is_blind=False))
    rows = np.arange(60)
    candidate = Candidate(Experiment(net, FITTED, dataset), 16)
    losses = try_on(candidate, rows[:40], rows[40:], seconds=0.0)  # a head is fitted nevertheless
    assert losses.shape == (20,)
    assert losses.mean() < 0.3


def test_training_that_makes_a_fitted_head_worse_is_taken_back(tmp_path):
    recipe = replace(FITTED, optimizer="sgd", lr=0.1, initial_fraction=0.1)
    parts = Parts(loss=lambda logits, targets: nn.functional.cross_entropy(logits, 1 - targets))
    net = Features(is_blind=False)
    run = start_run(bright(16), net, recipe, parts=parts, runs_dir=tmp_path)
    with closing(run.iter_train()) as begun:
        next(event for event in begun if isinstance(event, Epoch))
    run = load_run(run.path, module=net, parts=parts)
    events = list(run.iter_train(data=bright(16)))
    (remark,) = [event for event in events if isinstance(event, Remark)]
    assert re.match(r"head: kept, because val accuracy is \d+\.00 % with it, and ", str(remark))
    assert run.report.metrics["accuracy"] > 0.9
    last = [event for event in events if isinstance(event, Epoch)][-1]
    assert last.score.value > 0.9
    assert run.evaluate(data=bright(16)).score.value > 0.9


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[TimmNet]:
    folder = tmp_path_factory.mktemp("bodies")
    return [
        open_timm_net(name, str(save_random(name, folder / f"{name}.safetensors")), print)
        for name in ("test_efficientnet", "test_resnet")
    ]


def test_pretrained_candidates_end_with_the_largest_size_and_their_work_is_counted(
    bodies, monkeypatch
):
    monkeypatch.setattr("lamina.studies.choosing.find_all_at_hand", lambda: bodies)
    deadline = Deadline(time.perf_counter(), 1e6)
    request = Request(pretrained=True, given={"lr": 0.5})
    candidates, reason = propose_pretrained(bright(64), request, deadline)
    assert reason == ""
    assert (candidates[0].side_px, candidates[-1].side_px) == (64, 224)
    assert {candidate.net_name for candidate in candidates} == {net.net_name for net in bodies}
    assert all(candidate.recipe.lr == 0.5 for candidate in candidates)
    assert all(candidate.recipe.head == "fitted" and candidate.is_open for candidate in candidates)
    works = [count_work(candidate) for candidate in candidates[:2]]
    assert min(works) > 1e5


def test_arrays_are_resized_to_the_size_that_is_chosen_and_can_be_used_again(tmp_path):
    dataset = bright()
    request = Request(given={"epochs": 1}, pretrained=False)
    events = list(iter_training(dataset, request, None, RunSetup(tmp_path, "mine")))
    (decision,) = [event for event in events if getattr(event, "what", "") == "chosen"]
    assert isinstance(decision, Decision)
    assert " at 16 px (the images are 8 px), about 1 epoch in " in decision.value
    run = load_run(tmp_path / "mine")
    assert run.record.in_shape == (3, 16, 16)
    assert run.evaluate(data=dataset).score.value == events[-1].score.value


def test_a_limit_that_is_over_once_the_data_are_read_does_not_concern_epochs_that_are_given(
    tmp_path,
):
    events = iter_training(
        bright(16),
        Request(given={"epochs": 1}, pretrained=False),
        Deadline(time.perf_counter() - 1010, 10.0),
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
        ({"net": "cnn", "pretrained": True}, r"^lamina chooses no net, because it is given\."),
        ({"pretrained": "yes"}, r"^pretrained must be True, False or None, got str\."),
    ],
)
def test_arguments_that_do_not_go_together_are_named_as_python_has_them(
    tmp_path, arguments, message
):
    with pytest.raises(LaminaError, match=message):
        train(bright(), runs_dir=tmp_path, progress=False, **arguments)
    assert not list(tmp_path.iterdir())
