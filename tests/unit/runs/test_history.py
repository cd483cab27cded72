"""``history.jsonl``: it grows, is read while it is written, and names what is damaged."""

from __future__ import annotations

import json
import math
import re
import threading

import pytest

from lamina.errors import LaminaWarning
from lamina.training.events import Epoch
from support.runs import refuses


def test_the_history_is_a_frame_of_the_epochs_numbers(run):
    assert run.history.is_empty()
    assert run.history.columns[:3] == ["epoch", "epochs", "train_loss"]
    for row in (
        {"event": "epoch", "epoch": 1, "train_loss": 1, "weights": "ab", "diagnoses": []},
        {"event": "epoch", "epoch": 2, "train_loss": 0.5, "val_accuracy": 0.25},
    ):
        run.folder.append_row(row)
    assert run.history.to_dict(as_series=False) == {
        "epoch": [1, 2],
        "train_loss": [1.0, 0.5],
        "val_accuracy": [None, 0.25],
    }
    panels = {axes.get_title(loc="left"): axes for axes in run.plot().axes}
    assert [list(line.get_ydata()) for line in panels["loss"].lines] == [[1.0, 0.5], []]


def test_the_history_grows_by_a_line_an_epoch(run):
    assert run.folder.read_epochs() == []
    rows = [
        {"event": "epoch", "epoch": 1, "train_loss": 0.1 + 0.2, "train_accuracy": None},
        {"event": "epoch", "epoch": 2, "train_loss": 1e-9},
    ]
    for place, row in enumerate(rows, start=1):
        run.folder.append_row(row)
        assert run.folder.read_epochs() == rows[:place]


def test_nan_and_infinity_become_null(run):
    epoch = Epoch(1, 2, math.nan, None, 1.0, 12.0, 0.1, metrics={"val_loss": math.inf})
    run.folder.append_row(epoch.to_json())
    row = json.loads((run.path / "history.jsonl").read_text())
    assert (row["train_loss"], row["val_loss"]) == (None, None)


def test_a_last_line_cut_short_is_ignored_with_a_warning(run):
    run.folder.append_row({"event": "epoch", "epoch": 1, "reason": "ü"})
    file = run.path / "history.jsonl"
    whole = file.read_bytes()
    for length in range(1, len(whole)):
        file.write_bytes(whole + whole[:length])
        message = (
            f"The last line of {file} is incomplete, probably after a crash, and is ignored. "
            "lamina resume repeats that epoch."
        )
        with pytest.warns(LaminaWarning, match=f"^{re.escape(message)}$"):
            assert run.folder.read_epochs() == [{"event": "epoch", "epoch": 1, "reason": "ü"}]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[2]", "expected a JSON object, got [2]"),
        ("{}", "event must be 'epoch' or 'end', got None"),
        ('{"event": "rewind"}', "event must be 'epoch' or 'end', got 'rewind'"),
        ('{"event": "end"}', "epoch must be a whole number of at least 1, got None"),
        (
            '{"event": "epoch", "epoch": "two"}',
            "epoch must be a whole number of at least 1, got 'two'",
        ),
        (
            '{"event": "epoch", "epoch": true}',
            "epoch must be a whole number of at least 1, got True",
        ),
        (
            '{"event": "epoch", "epoch": 2, "train_seconds": "x"}',
            "train_seconds must be a number, got 'x'",
        ),
        ('{"event": "epoch", "epoch": 2, "epochs": [1]}', "epochs must be a number, got [1]"),
    ],
)
def test_a_damaged_line_is_named(line, why, run):
    file = run.path / "history.jsonl"
    file.write_text(f'{{"event": "epoch", "epoch": 1}}\n{line}\n{{"event": "epoch", "epoch": 3}}\n')
    with refuses(
        f"Line 2 of {file} is damaged: {why}. Restore the file from a copy, or delete that line;"
        " weights and checkpoint are in other files."
    ):
        run.folder.read_epochs()


def test_the_history_can_be_read_while_it_is_written(run):
    def write() -> None:
        for epoch in range(1, 51):
            run.folder.append_row({"event": "epoch", "epoch": epoch, "train_loss": 1 / epoch})

    writer = threading.Thread(target=write)
    writer.start()
    lengths = []
    while writer.is_alive():
        rows = run.folder.read_epochs()
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        lengths.append(len(rows))
    writer.join()
    assert lengths == sorted(lengths)
    assert len(run.folder.read_epochs()) == 50


def test_the_end_stands_in_the_history_after_the_epochs(run):
    run.folder.append_row({"event": "epoch", "epoch": 1})
    assert (run.end, run.is_finished) == (None, False)
    run.folder.append_row({"event": "end", "epoch": 1, "reason": "enough"})
    assert [row["epoch"] for row in run.folder.read_epochs()] == [1]
    assert (run.end, run.is_finished) == ("enough", True)


def test_what_a_crash_cut_off_from_its_checkpoint_is_trimmed(run):
    run.folder.trim_history(0)
    rows = [
        {"event": "epoch", "epoch": 1},
        {"event": "epoch", "epoch": 2},
        {"event": "epoch", "epoch": 3},
        {"event": "end", "epoch": 3, "reason": ""},
    ]
    for row in rows:
        run.folder.append_row(row)
    file = run.path / "history.jsonl"
    file.write_bytes(file.read_bytes() + b'{"event": "epoch", "epoch": 4, "tra')
    run.folder.trim_history(3)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    before = file.stat().st_ino
    run.folder.trim_history(3)
    assert file.stat().st_ino == before  # nothing to do, nothing written
    run.folder.trim_history(2)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows[:2]
