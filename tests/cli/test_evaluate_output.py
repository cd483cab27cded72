"""``lamina evaluate RUN --output FILE.csv``: a row for each image, for every kind of target."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import load_run
from lamina.text import guard, unguard
from support.commands import run_lamina, run_well

NET = "Flatten(), Output()"


NAMES = ("=1+1.png", "-2.png", "@a.png", "+b.png", "plain.png", "'=c.png", "a,b.png", 'a"b.png')


def write_table(folder: Path, cells: list[str], column: str) -> Path:
    folder.mkdir()
    rows = [("image", column)]
    for place, cell in enumerate(cells):
        name = f"{place:02d}{NAMES[place % 8]}" if place >= 8 else NAMES[place]
        pixels = np.random.default_rng(place).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        rows.append((name, cell))
    with (folder / "t.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return folder / "t.csv"


def read_lines(file: str | Path) -> list[list[str]]:
    with Path(file).open(newline="", encoding="utf-8") as opened:
        return list(csv.reader(opened))


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label", ["=cmd|calc", "cat"]),
        ("label", ["a|b", "b", "-c|a"]),
        ("sick", ["yes", "no"]),
        ("weight", ["-1.5", "2.25", "3.125"]),
    ],
)
def test_the_table_has_the_model_s_probabilities_and_no_formulas(workplace, column, values):
    table = write_table(
        workplace / "set", [values[place % len(values)] for place in range(48)], column
    )
    kind = ("--task", "single-label") if "=cmd|calc" in values else ()
    train = (
        "train",
        NET,
        "--data",
        table,
        "--label-column",
        column,
        *kind,
        "--epochs",
        "1",
        "--name",
        "r",
    )
    done = run_well(*train)
    done = run_well("evaluate", "runs/r", "--output", "out.csv")
    rows, run = read_rows(Path("out.csv")), load_run("runs/r")
    outputs, task = run.outputs["test"], run.task
    assert f"out.csv: {len(outputs.names)} images" in done.stdout
    assert [unguard(row["image"]) for row in rows] == list(outputs.names)
    assert {(row["split"], row["fold"]) for row in rows} == {("test", "")}
    given = dict(read_lines(table))
    for row, logits in zip(rows, outputs.logits.astype(np.float64), strict=True):
        truth = given[unguard(row["image"])]
        if column == "weight":
            assert row["target(weight)"] == truth
            assert float(row["predicted(weight)"]) == pytest.approx(logits[0], rel=1e-5)
            continue
        expected_names = truth.split("|") if task.kind.name == "multi-label" else [truth]
        assert sorted(unguard(row["target"]).split(";")) == sorted(expected_names)
        chances = [float(value) for name, value in row.items() if name.lstrip("'").startswith("p(")]
        expected = 1 / (1 + np.exp(-logits))
        if task.kind.name == "single-label":
            expected = np.exp(logits) / np.exp(logits).sum()
        expected = [1 - expected[0], expected[0]] if column == "sick" else expected
        assert chances == pytest.approx(list(expected), abs=1e-5)
        names = task.kind.class_names(task.target_names)
        chosen = {names[int(np.argmax(chances))]}
        if task.kind.name == "multi-label":
            chosen = {name for name, one in zip(names, chances, strict=True) if one > 0.5}
        assert set(filter(None, unguard(row["predicted"]).split(";"))) == chosen
    for line in read_lines("out.csv"):
        for cell in line:  # a cell that begins like a formula is a number
            assert cell[:1] not in tuple("=+-@") or float(cell) < 0


def test_predict_writes_no_formulas_either(workplace):
    table = write_table(workplace / "set", ["=cmd|calc", "cat"] * 24, "label")
    train = (
        "train",
        NET,
        "--data",
        table,
        "--task",
        "single-label",
        "--epochs",
        "1",
        "--name",
        "r",
    )
    run_well(*train)
    run_well("predict", "runs/r", "set", "--output", "out.csv")
    cells = [cell for line in read_lines("out.csv") for cell in line]
    assert any(cell.startswith("'=cmd") for cell in cells)
    assert not any(cell.startswith(tuple("=+-@")) for cell in cells)


@pytest.mark.parametrize(
    "cell", ["", "a", "=1", "'=1", "''=1", "'a", "-", "+x", "@y", "\tz", "it's"]
)
def test_a_guarded_cell_is_no_formula_and_can_be_read_back(cell):
    assert not guard(cell).startswith(tuple("=+-@\t\r"))
    assert unguard(guard(cell)) == cell


def test_a_table_that_cannot_be_written_is_refused_first(workplace):
    for file, message in (
        ("out.txt", "must end in .csv"),
        ("no/out.csv", "the folder no does not exist"),
    ):
        done = run_lamina("evaluate", "runs/none", "--output", file)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
