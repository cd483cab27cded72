"""``lamina train NET --seeds N``: several runs with different seeds, and their mean scores."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina import load_run
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.paired import score_images, seed_deviation
from support.commands import events, run_lamina, run_well

NET_TEXT = "Flatten(), Output()"


def test_seeds_are_trained_scored_averaged_and_more_can_follow(workplace, image_set):
    train = (
        "train",
        NET_TEXT,
        "--data",
        image_set,
        "--epochs",
        "1",
        "--lr",
        "0.0001",
        "--seed",
        "5",
        "--name",
        "first",
    )
    done = run_well(*train, "--seeds", "2", "--json")
    *rest, last = events(done.stdout)
    names = ["runs/first/seed5", "runs/first/seed6"]
    reports = [load_run(name).report for name in names]
    scores = [report.metrics["accuracy"] for report in reports]
    stored = [load_run(name) for name in names]
    table = np.stack([score_images(run.task, run.outputs["test"]) for run in stored])
    expected = mean_interval(scores)
    assert last == {
        "event": "seeds",
        "scores": scores,
        "mean": statistics.fmean(scores),
        "interval": [expected.low, expected.high],
        "deviation": pytest.approx(seed_deviation(table)),
        "metric": "accuracy",
        "split": "test",
        "seeds": [5, 6],
        "runs": names,
    }
    trained = [event for event in rest if event.get("what") == "trained"]
    assert [event["run"] for event in trained] == names
    first, second = (load_run(name).record for name in names)
    assert replace(first.recipe, seed=6) == second.recipe
    assert first.data == second.data
    assert (
        load_run(names[0]).folder.read_epochs()[0]["weights"]
        != load_run(names[1]).folder.read_epochs()[0]["weights"]
    )

    again = run_well(*train, "--seeds", "3")
    assert [path.name for path in sorted(Path("runs/first").glob("seed*"))] == [
        "seed5",
        "seed6",
        "seed7",
    ]
    assert again.stderr.count("trained: seed") == 1  # only the third
    assert (
        f"seed 5: test accuracy {100 * scores[0]:.2f} % (runs/first/seed5)"
        in again.stdout.splitlines()
    )
    assert "95 % interval of the mean" in again.stdout
    assert " points) (95 % interval of the mean" in again.stdout

    other = run_lamina(*train, "--seeds", "3", "--batch-size", "7")
    assert other.returncode == 2
    assert (
        other.stderr.splitlines()[-1]
        == "lamina: runs/first already exists, with different settings: experiments. Choose"
        " another name, or run the same command with the same data, files and functions as before."
    )
    run_well("report", "runs/first")
    assert "95 % interval of the mean" in Path("runs/first/report.html").read_text()
