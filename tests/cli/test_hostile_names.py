"""Names with control characters or markup are escaped when shown, and unchanged in JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import Images, LaminaWarning, load_data, load_run
from lamina.errors import DataError
from lamina.runs.run import Run
from support.commands import events, run_lamina, run_well
from support.images import SIDE_PX

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")

CLASSES = {
    "\x1b]0;owned\x07\x1b[31mred": (250, 20, 20),
    "new\nline\tand tab": (20, 250, 20),
    '"quoted", \u202egnp.exe\r': (20, 20, 250),
}
FILE = "\x1b[2Jfile\n\t\u202egpj,\r.png"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202e]")


def write(file: Path, color: tuple[int, int, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE_PX, SIDE_PX), color).save(file, "PNG")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, color in CLASSES.items():
        for split, count in (("train", 6), ("test", 2)):
            for number in range(count):
                shade = tuple(min(255, value + number) for value in color)
                write(folder / "data" / split / name / f"{number}{FILE}", shade)
    (folder / "data" / "train" / next(iter(CLASSES)) / f"broken{FILE}").write_bytes(b"no image")
    write(folder / "new" / FILE, (250, 20, 20))
    (folder / "new" / f"broken{FILE}").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def cache_of_module(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("hostile-cache"))


@pytest.fixture(scope="module")
def hostile_run(place: Path, cache_of_module: str) -> Path:
    run = place / "runs" / "first"
    done = run_well(
        "train",
        "Flatten(), Output()",
        "--data",
        place / "data",
        "--epochs",
        "3",
        "--lr",
        "0.01",
        "--runs-dir",
        place / "runs",
        "--name",
        "first",
        draws_curves=True,
        LAMINA_CACHE=cache_of_module,
    )
    assert_tame(done.stdout + done.stderr)
    assert "Glyph" not in done.stderr
    assert r"\x1b]0;owned\x07\x1b[31mred" in done.stdout
    assert r"new\nline\tand tab" in done.stdout
    assert (run / "curves.png").exists()
    return run


def assert_tame(text: str) -> None:
    assert not OBEYED.search(text), repr(text)
    assert "owned\x07" not in text
    assert not [line for line in text.splitlines() if line.startswith(("line", "\tand", "gpj"))], (
        text
    )


def test_a_report_and_the_inspection_of_data_show_names_escaped(
    place, hostile_run, cache_of_module
):
    for arguments in (
        ("evaluate", hostile_run),
        ("data", place / "data", "--contact-sheet", place / "sheet.png"),
        ("runs", "--runs-dir", place / "runs"),
    ):
        done = run_well(*arguments, LAMINA_CACHE=cache_of_module)
        assert_tame(done.stdout + done.stderr)
    printed = run_lamina("data", place / "data", "--json", LAMINA_CACHE=cache_of_module)
    (event,) = events(printed.stdout)
    assert set(event["counts"]["train"]) == set(CLASSES)


def test_predictions_are_shown_escaped_and_written_as_they_are(place, hostile_run, cache_of_module):
    shown = run_lamina("predict", hostile_run, place / "new", LAMINA_CACHE=cache_of_module)
    assert shown.returncode == 2
    assert_tame(shown.stdout + shown.stderr)
    assert len(shown.stdout.splitlines()) == 2
    assert [len(line.split("\t")) for line in shown.stdout.splitlines()] == [2, 2]

    names = [str(place / "new" / FILE), str(place / "new" / f"broken{FILE}")]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        output = place / f"predictions{suffix}"
        run_lamina(
            "predict", hostile_run, place / "new", "--output", output, LAMINA_CACHE=cache_of_module
        )
        with output.open(newline="", encoding="utf-8") as opened:
            head, *rows = csv.reader(opened, delimiter=delimiter)
        assert set(head) == {"image", "predicted", "problem", *(f"p({name})" for name in CLASSES)}
        assert sorted(row[0] for row in rows) == sorted(names)
        assert all(len(row) == len(head) for row in rows)
        (predicted,) = (row[1] for row in rows if row[0] == names[0])
        assert predicted in CLASSES
    lines = run_lamina(
        "predict", hostile_run, place / "new", "--json", LAMINA_CACHE=cache_of_module
    ).stdout
    assert {event["image"] for event in map(json.loads, lines.splitlines())} == set(names)


def test_in_python_nothing_that_is_printed_obeys_a_name(
    place, hostile_run, cache_of_module, monkeypatch
):
    monkeypatch.setenv("LAMINA_CACHE", cache_of_module)
    with pytest.warns(LaminaWarning) as warned:
        dataset = load_data(place / "data")
    assert any("broken" in str(warning.message) for warning in warned)
    question = next(iter(CLASSES))
    images = Images.from_arrays(np.zeros((2, 4, 4), np.uint8), [True, False], [question])
    run = load_run(hostile_run)
    other = place / "other"
    renamed = Run(other, replace(run.record, net_name=question))
    with pytest.raises(DataError) as rejected:
        load_data(place / FILE)
    for shown in (*(warning.message for warning in warned), rejected.value):
        assert_tame(str(shown))
    for shown in (images, renamed, dataset):
        assert_tame(repr(shown))


def test_errors_show_names_escaped(tmp_path):
    done = run_lamina("predict", tmp_path / "\x1b[31mrun\nlamina: all is well", "a.png")
    assert done.returncode == 2
    assert_tame(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert os.linesep.join(done.stderr.splitlines()).startswith("lamina: ")
