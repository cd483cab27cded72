"""A run with a full disk, a failing module, non-finite numbers, a time limit or an interrupt."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time

import pytest
from torch import Tensor, nn

from lamina import Epoch, Recipe, Report, Step, load_run, start_run
from lamina.deploy.facts import collect_facts
from lamina.errors import RunError
from lamina.training.events import EarlyEnd, Resumed
from lamina.training.group import interrupt
from support.runs import DATA, NET, RECIPE, WITH_VAL, digests, full_disk

opened: list[str] = []
"""The files that this process has opened to read, while a test counts them."""
is_counting = False


def note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if is_counting and event == "open" and str(arguments[1]).startswith("r"):
        opened.append(str(arguments[0]))


sys.addaudithook(note_opening)


def test_the_history_is_not_read_again_after_every_epoch(tmp_path):
    global is_counting
    recipe = dataclasses.replace(RECIPE, epochs=30, patience=30)
    run = start_run(WITH_VAL, NET, recipe, runs_dir=tmp_path)
    is_counting = True
    try:
        for event in run.iter_train():
            if isinstance(event, Epoch) and event.epoch == 29:
                break
    finally:
        is_counting = False
    assert len(digests(run)) == 29
    assert sum(name.endswith("history.jsonl") for name in opened) <= 6


def test_a_finished_run_resumed_on_a_full_disk_keeps_its_files(tmp_path):
    run = start_run(WITH_VAL, NET, RECIPE, runs_dir=tmp_path)
    report = run.train(progress=False)
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with (
        full_disk(100),
        pytest.raises(
            RunError, match=r"^Cannot write to .*: File too large\. The last checkpoint is intact"
        ),
    ):
        run.train(progress=False)
    assert run.report == report
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_a_run_begun_on_a_full_disk_can_be_resumed(tmp_path):
    straight = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    straight.train(progress=False)
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, name="full")
    with (
        full_disk(1500),
        pytest.raises(RunError, match=r"^Cannot write to .* No checkpoint was saved"),
    ):
        run.train(progress=False)
    assert run.folder.read_epochs() == []
    run.train(progress=False)
    assert digests(run) == digests(straight)


def test_a_history_without_weights_after_a_kill_is_cut_off(tmp_path):
    straight = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    straight.train(progress=False)
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    run.folder.append_row(straight.folder.read_epochs()[0])
    run.train(progress=False)
    assert digests(run) == digests(straight)


class Unreadable(nn.Module):
    """Fails as a module that reads a file of its own may."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(108, 3)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise FileNotFoundError(2, "No such file or directory", "prototypes.pt")
        return self.linear(images.flatten(1))


def test_an_os_error_of_a_module_is_not_taken_for_a_full_disk(tmp_path):
    run = start_run(DATA, Unreadable(), RECIPE, runs_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"prototypes\.pt"):
        run.train(progress=False)


def test_a_training_ended_within_an_epoch_can_be_resumed(tmp_path):
    straight = start_run(WITH_VAL, NET, RECIPE, runs_dir=tmp_path)
    straight.train(progress=False)
    run = start_run(WITH_VAL, NET, RECIPE, runs_dir=tmp_path, name="limited")
    first, ended, report = run.iter_train(until=time.perf_counter())
    assert (type(first), first.step) == (Step, 1)
    assert ended == EarlyEnd(0, "time limit reached after 0 of 2 epochs")
    assert (report.split, run.report, run.is_finished) == ("test", report, False)
    assert f"epochs 0/2, test {report.score}, not finished)" in repr(run)
    # on the report page and the card
    assert "Training ended after 0 of 2 epochs." in collect_facts(run).about
    assert run.train(progress=False) is not None
    assert digests(run) == digests(straight)
    assert run.is_finished


def test_a_request_to_finish_makes_the_next_step_the_last(tmp_path):
    run = start_run(WITH_VAL, NET, RECIPE, runs_dir=tmp_path)
    finish = threading.Event()
    finish.set()
    events = list(run.iter_train(finish=finish))
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1]
    assert (run.end, run.epochs, len(digests(run))) == ("finished on request", 1, 1)
    resumed, report = run.iter_train()
    assert isinstance(resumed, Resumed) and isinstance(report, Report)


def test_a_time_limit_over_after_the_last_epoch_is_no_early_end(tmp_path):
    run = start_run(
        DATA, NET, dataclasses.replace(RECIPE, epochs=1, batch_size=12), runs_dir=tmp_path
    )
    assert [type(event) for event in run.iter_train(until=time.perf_counter())][:1] == [Epoch]
    assert run.is_finished


def test_train_blocks_prints_each_epoch_and_gives_the_report(tmp_path, capsys):
    run = start_run(WITH_VAL, NET, RECIPE, runs_dir=tmp_path)
    report = run.train()
    assert report == run.report
    printed = capsys.readouterr().out.splitlines()
    beginnings = ["data", "targets", "recipe", "net", "device"]
    assert [line.partition(":")[0] for line in printed[:5]] == beginnings
    assert [line.split("  ")[0] for line in printed[5:]] == [
        "epoch 1/2",
        "epoch 2/2",
        f"test {report.score}",
    ]
    assert all("val accuracy" in line for line in printed[5:7])


def test_an_interrupt_in_the_last_step_of_an_epoch_is_saved(tmp_path, monkeypatch):
    # so that no short epoch is worth a checkpoint
    monkeypatch.setattr("lamina.runs.course.SAVING_FRACTION", 0.0)
    monkeypatch.setattr("lamina.runs.course.SAVE_SECONDS", 1e6)
    recipe = Recipe(epochs=3, batch_size=4, precision="fp32", seed=7, lanes=2)
    run = start_run(DATA, NET, recipe, runs_dir=tmp_path)
    loop = run.iter_train()
    for event in loop:
        if isinstance(event, Step) and event.step == 2:
            interrupt()
        if isinstance(event, Epoch):
            break
    assert load_run(run.path).folder.read_checkpoint().standing.steps_done == 3
    loop.close()
