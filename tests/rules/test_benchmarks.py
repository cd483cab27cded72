"""Every benchmark starts; those without other libraries run on few images, results unchecked."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from support import forking

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)
START = """
import runpy, sys

sys.path[0] = sys.argv.pop(1)
runpy.run_path(f"{sys.path[0]}/{sys.argv.pop(1)}", run_name="__main__")
"""


def run_benchmark(name, *options):
    environment = {**os.environ, "COLUMNS": "200"}
    return forking.run(
        str(BENCHMARKS), name, *map(str, options), code=START, environment=environment
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_has_help(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert ended.value.code == 0
    # One stores the scores that verdicts.py reads; of the other, a subcommand stores rows.
    stores_rows = name not in ("verdict_runs.py", "busy.py")
    assert ("--json" in capsys.readouterr().out) == stores_rows


@pytest.mark.slow
@pytest.mark.cifar10
@pytest.mark.usefixtures("cifar10")
def test_the_share_of_reading_is_printed_for_each_net(tmp_path):
    done = run_benchmark(
        "data_path.py",
        "--nets",
        "mlp,cnn-s:quick",
        "--turns",
        1,
        "--images",
        200,
        "--json",
        tmp_path / "rows.json",
    )
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line)
        for line in (tmp_path / "rows.json").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["net"] for row in rows] == ["mlp", "cnn-s:quick"]
    assert all(0 < row["share"] < 1 for row in rows)


@pytest.mark.slow
@pytest.mark.cifar10
@pytest.mark.usefixtures("cifar10")
def test_the_share_of_the_ceiling_uses_counted_operations(tmp_path):
    done = run_benchmark(
        "ceiling.py",
        "--nets",
        "mlp",
        "--batch-size",
        "50",
        "--turns",
        1,
        "--images",
        200,
        "--json",
        tmp_path / "rows",
    )
    assert done.returncode == 0, done.stderr
    (row,) = [
        json.loads(line) for line in (tmp_path / "rows").read_text(encoding="utf-8").splitlines()
    ]
    assert row["flop_per_image"] == 6 * (3072 * 100 + 100 * 10)
    # The first layer needs no gradient of its inputs: two products where the others have three.
    assert row["needed_flop_per_image"] == 4 * 3072 * 100 + 6 * 100 * 10
    assert (
        row["images_per_second"] * row["flop_per_image"] / row["ceiling_flop_per_second"]
        == row["fraction"]
    )


@pytest.mark.slow
@pytest.mark.cifar10
@pytest.mark.usefixtures("cifar10")
def test_label_issues_are_counted(tmp_path):
    few = ("--a-class", 10, "--classes", 2)
    done = run_benchmark(
        "label_issues.py", "labels", *few, "--scratch", "--json", tmp_path / "row.json"
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "row.json").read_text(encoding="utf-8"))
    assert (row["injected"], row["images"]) == ("labels", 20)
    assert 0 <= row["confident learning"]["recall"] <= row["disagreement"]["recall"] <= 1


@pytest.mark.slow
def test_verdicts_are_counted_in_studies_of_stored_scores(tmp_path):
    stored = BENCHMARKS / "results" / "verdict-scores"
    done = run_benchmark(
        "verdicts.py",
        stored / "digits-mlp.npz",
        stored / "digits-linear.npz",
        "--images",
        500,
        "--studies",
        30,
        "--json",
        tmp_path / "rows.json",
    )
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line)
        for line in (tmp_path / "rows.json").read_text(encoding="utf-8").splitlines()
    ]
    of_lamina = [row for row in rows if row["procedure"] == "lamina" and row["most"] is not None]
    assert {row["seeds"] for row in of_lamina} == {
        "4 seeds",
        "8 seeds",
        "16 seeds",
        "until decided",
    }
    holds = [row for row in of_lamina if "collapses" not in row["case"]]
    assert all(row["low"] <= row["most"] for row in holds)
    by_seeds = [
        row
        for row in rows
        if row["procedure"] == "t test over seeds" and "made equal" in row["case"]
    ]
    assert max(row["low"] for row in by_seeds) > 0.05
