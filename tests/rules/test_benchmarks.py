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
    assert "--json" in capsys.readouterr().out


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
def test_verdicts_are_simulated_from_stored_runs(tmp_path):
    words = (
        "--data",
        "shapes",
        "--epochs",
        "1",
        "--batch-size",
        "1000",
        "--lr",
        "0.001",
        "--seeds",
        "8",
    )
    net = "Flatten(), Output()"
    trained = forking.run("train", net, *words, "--name", "base", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    runs = sorted((tmp_path / "runs").iterdir())
    done = run_benchmark(
        "verdicts.py", *runs, "--studies", 60, "--gain", 0.05, "--json", tmp_path / "rows.json"
    )
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line)
        for line in (tmp_path / "rows.json").read_text(encoding="utf-8").splitlines()
    ]
    claimed = [row for row in rows if row["question"].startswith("equal")]
    assert [row["seeds"] for row in claimed] == ["2", "4", "4"]
    assert all(row["low"] <= 0.05 for row in claimed)
    assert next(row for row in rows if "detected" in row["question"])["high"] >= 0.8
