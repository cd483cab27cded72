"""Two trainings of which the better is kept, and what is left where one fails or is stopped."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from lamina import (
    Dataset,
    Epoch,
    Images,
    LaminaError,
    LaminaWarning,
    Preparation,
    Recipe,
    Report,
    load_data,
    load_run,
)
from lamina.data.load import resize_dataset
from lamina.nets import parse_net
from lamina.runs.net_names import NetChoice
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.studies.choice_events import Comparison, Decision, Kept, Started
from lamina.studies.choose import choose, iter_chosen, iter_stages
from lamina.studies.entry_point import train
from lamina.studies.experiments import Candidate, Deadline, Experiment
from lamina.training.events import EarlyEnd
from lamina.training.timing import Pace
from small_runs import full_disk

SMALL, LARGE = parse_net("Flatten(), Output()"), parse_net("Flatten(), Linear(64), ReLU(), Output()")


def bright(side_px: int = 8) -> Dataset:
    """Bright and dark images, 20 or more of each split."""
    generator = np.random.default_rng(0)

    def images(count: int) -> Images:
        targets = np.arange(count) % 2
        noise = generator.integers(0, 100, (count, side_px, side_px, 3))
        return Images.from_arrays((noise + 120 * targets[:, None, None, None]).astype(np.uint8), targets)

    return Dataset.from_images(images(60), images(20), images(30))


def iter_two(
    runs_dir: Path, first: Recipe | None = None, second: Recipe | None = None, on_diagnosis: str = "continue"
) -> Generator:
    """The events of two trainings, of which the second is better."""
    first, second = first or Recipe(epochs=2), second or Recipe(epochs=4)
    stages = [
        Candidate(
            Experiment(NetChoice(name, net, {"default": recipe}), recipe, bright()), 8, Pace(1e-6, 1e-6),
            most_epochs=recipe.epochs,
        )
        for name, net, recipe in (("small", SMALL, first), ("large", LARGE, second))
    ]  # fmt: skip
    return iter_stages(
        stages, Deadline(perf_counter() + 90, 10.0), {"weight_decay": 0.0},
        start=partial(start_run, runs_dir=runs_dir, device="cpu"),
        train=partial(Run.iter_train, on_diagnosis=on_diagnosis), device="cpu", name="mine", progress=None,
    )  # fmt: skip


def test_the_better_run_is_evaluated_once_and_gets_the_name(tmp_path):
    events = list(iter_two(tmp_path))
    first, second = (event.run for event in events if isinstance(event, Started))
    (kept,) = (event for event in events if isinstance(event, Kept))
    (test,) = (event for event in events if isinstance(event, Report) and event.split == "test")
    assert (kept.run.path, kept.was) == (tmp_path / "mine", second.path)
    printed = [line for event in events for line in str(event).split("\n") if str(tmp_path) in line]
    assert printed == [f"run: {tmp_path / 'mine'}"]  # of the run that stays, and no other
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    run = load_run(tmp_path / "mine")
    assert run.report == test
    (comparison,) = (event for event in events if isinstance(event, Comparison))
    assert run.record.considered == comparison.candidates
    assert {one.net_name: one.verdict for one in comparison.candidates} == {"small": "less accurate", "large": "chosen"}
    assert str(comparison).startswith("considered  size")
    assert comparison.to_json()["candidates"][0]["net_name"] == "small"
    assert first.path.name == "mine"


def test_a_second_training_that_cannot_start_leaves_the_first_evaluated(tmp_path):
    with ExitStack() as disk, pytest.warns(LaminaWarning) as warned:
        for event in iter_two(tmp_path):
            if isinstance(event, Epoch) and event.epoch == event.epochs:
                disk.enter_context(full_disk(10))
            elif isinstance(event, Comparison):
                disk.close()
    assert str(warned[0].message).startswith(f"Cannot write a run to {tmp_path}: ")
    assert str(warned[0].message).endswith(f" Kept {tmp_path / 'mine'} instead.")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert load_run(tmp_path / "mine").report.split == "test"


def test_a_second_training_that_goes_wrong_leaves_no_run(tmp_path):
    wild = Recipe(epochs=3, optimizer="sgd", lr=1e30, precision="fp32")
    with pytest.warns(LaminaWarning, match=r"Train again with a lower lr, .*=1\. Kept \S+/mine instead\.$"):
        events = list(iter_two(tmp_path, second=wild))
    assert isinstance(events[-1], Report)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert load_run(tmp_path / "mine").record.net_name == "small"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_stopped_in_the_second_training_the_better_so_far_is_named_and_both_stay(tmp_path, interrupt):
    events, started = iter_two(tmp_path, first=Recipe(epochs=2, lr=0.1)), []
    for event in events:
        started += [event.run] if isinstance(event, Started) else []
        if isinstance(event, Epoch) and len(started) == 2:
            break
    kept, comparison = events.throw(interrupt()), next(events)
    with pytest.raises(interrupt):
        next(events)
    assert (kept.run.path, kept.stopped) == (started[0].path, started[1].path)
    assert [one.verdict for one in comparison.candidates] == ["chosen", "higher loss"]  # their accuracies are equal
    best, stopped = load_run(started[0].path), load_run(started[1].path)
    assert best.record.considered == comparison.candidates
    assert best.report is None  # test is read once, for the better of two whole runs
    assert [row["epoch"] for row in stopped.folder.history.epochs()] == [1]
    assert stopped.train(data=bright(), progress=False).split == "test"
    assert best.evaluate(data=bright()).split == "test"


def test_a_loop_that_is_left_leaves_whole_runs(tmp_path):
    with closing(iter_two(tmp_path)) as events:
        for event in events:
            if isinstance(event, Started) and event.run.record.net_name == "large":
                break
    first, second = sorted((load_run(path) for path in tmp_path.iterdir()), key=lambda run: run.record.created)
    assert len(first.folder.history.epochs()) == first.record.recipe.epochs == 2
    assert second.train(data=bright(), progress=False).split == "test"


@pytest.mark.parametrize(("lr", "begun"), [((50.0, 1e-3), 1), ((1e-3, 50.0), 2)], ids=["first", "second"])
def test_a_diagnosis_that_stops_a_training_reads_no_test_images(tmp_path, lr, begun):
    recipes = (Recipe(epochs=6, lr=one, optimizer="sgd", batch_size=10) for one in lr)
    events = list(iter_two(tmp_path, *recipes, on_diagnosis="stop"))
    (ended,) = (event for event in events if isinstance(event, EarlyEnd))
    assert ended.diagnosis is not None
    assert not any(isinstance(event, Report) and event.split == "test" for event in events)
    assert len(list(tmp_path.iterdir())) == begun
    assert all(load_run(path).report is None for path in tmp_path.iterdir())


def test_arrays_are_resized_to_the_size_that_is_chosen_and_can_be_used_again(tmp_path):
    dataset = bright()
    events = list(choose(dataset, given={"epochs": 1}, pretrained=False, name="mine", runs_dir=tmp_path))
    sizes = [event for event in events if isinstance(event, Decision) and event.what == "size"]
    assert [str(event) for event in sizes] == ["size: 16 px (the images are 8 px, enlarged)"]
    run = load_run(tmp_path / "mine")
    assert run.record.in_shape == (3, 16, 16)
    assert run.evaluate(data=dataset).accuracy == events[-1].accuracy


def test_a_limit_that_is_over_once_the_data_are_read_does_not_concern_epochs_that_are_given(tmp_path):
    events = iter_chosen(
        bright(16), Deadline(perf_counter() - 1010, 10.0), {"epochs": 1}, pretrained=False,
        start=partial(start_run, runs_dir=tmp_path, device="cpu"), train=Run.iter_train, device="cpu", name=None,
    )  # fmt: skip
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1]


def test_data_with_a_source_is_loaded_again_unless_it_was_changed_since():
    whole = load_data("shapes", Preparation(size_px=8))
    again = resize_dataset(whole, 12)
    assert np.array_equal(again.train.pixels, load_data("shapes", Preparation(size_px=12)).train.pixels)
    part = Dataset("part", "abc", whole.train.take(range(5)), source="shapes", preparation=whole.preparation)
    resized = resize_dataset(part, 12)
    assert resized.train.pixels.shape == (5, 12, 12, 3)
    assert resized.preparation == again.preparation


def test_train_gives_a_run_that_is_trained_and_evaluated(tmp_path):
    run = train(bright(), net="mlp", recipe=Recipe(epochs=2, seed=3), name="mine", runs_dir=tmp_path, progress=False)
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


def test_a_recipe_that_is_given_has_the_most_epochs_that_train_trains(tmp_path, capsys):
    run = train(bright(), net=SMALL, recipe=Recipe(epochs=2), seconds=60, runs_dir=tmp_path)
    assert run.record.recipe == Recipe(epochs=2)
    printed = capsys.readouterr().out
    assert re.search(r"^time: 60 s → 2 epochs of \S+ s each \(the recipe has 2\)$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "best"}, r'^recipe needs a net\. Add one, as in train\(data, net="cnn-s", recipe="best"\)\.$'),
        ({"net": "cnn", "recipe": "bst"}, r"^cnn has no recipe 'bst'\. Did you mean best\?"),
        ({"net": "cnn", "seconds": 0.0}, r"^seconds is 0\.0; it must be positive"),
        ({"seconds": -1.0}, r"^seconds is -1\.0; it must be positive"),
        ({"net": "none"}, r"^There is no net 'none' in the zoo\."),
    ],
)
def test_arguments_that_do_not_go_together_are_named_as_python_has_them(tmp_path, arguments, message):
    with pytest.raises(LaminaError, match=message):
        train(bright(), runs_dir=tmp_path, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_given_is_checked_before_anything_is_loaded():
    for given, message in (({"lr": -1.0}, "^lr "), ({"rate": 0.1}, "^Recipe: unknown argument 'rate'")):
        with pytest.raises(LaminaError, match=message):
            choose("nowhere", given=given)
