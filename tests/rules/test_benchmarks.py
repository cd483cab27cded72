"""Every benchmark starts; those without other libraries run on few images, results unchecked."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)
MINUTES = 60.0


def run_benchmark(name, *options):
    return subprocess.run(
        [sys.executable, BENCHMARKS / name, *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * MINUTES,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_has_help(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


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
    done = run_benchmark(
        "label_issues.py", "labels", "--a-class", 20, "--scratch", "--json", tmp_path / "row.json"
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "row.json").read_text(encoding="utf-8"))
    assert (row["injected"], row["images"]) == ("labels", 100)
    assert 0 <= row["confident learning"]["recall"] <= row["disagreement"]["recall"] <= 1


@pytest.mark.slow
def test_exports_match_the_model(tmp_path):
    done = run_benchmark(
        "exports.py",
        "--nets",
        "residual",
        "--kinds",
        "binary",
        "--images",
        5,
        "--json",
        tmp_path / "exports.json",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "exports.json").read_text())["exports"]
    assert [row["format"] for row in rows] == ["onnx", "pt2"]
    assert all(row["share_of_limit"] <= 1 for row in rows)


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
    trained = subprocess.run(
        [sys.executable, "-m", "lamina", "train", "Flatten(), Output()", *words, "--name", "base"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
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
