"""predict --confidence-threshold and --aim: predictions kept, and their accuracy."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from lamina import load_run
from lamina.evaluation.intervals import wilson_interval
from support.commands import events, run_lamina, run_well, train_once

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


def find_numbers(text: str) -> list[float]:
    return [float(figure.replace(",", "")) for figure in re.findall(r"[\d,]*\d(?:\.\d+)?", text)]


def test_uncertain_predictions_are_rejected(shapes_run, workplace, image_set):
    image = image_set / "test/dark"
    threshold = ("--confidence-threshold", "0.99")
    done = run_well("predict", shapes_run, image, *threshold, "--json")
    assert "confidence threshold: 99 %; on 200 test images, " in done.stderr
    for event in events(done.stdout):
        assert event["rejected"] is (max(event["probabilities"].values()) < 0.99)
    done = run_well("predict", shapes_run, image, *threshold)
    lines = done.stdout.splitlines()[1:]
    count = len(list(image.glob("*.png")))
    assert len(lines) == count
    assert all(line.split("\t")[1].startswith("rejected (") for line in lines)
    low = ("--confidence-threshold", "0.01")
    run_lamina("predict", shapes_run, image, *low, "--output", "all.csv")
    with Path("all.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == count
    assert {row["rejected"] for row in rows} == {"no"}


def test_the_effect_of_a_threshold_is_that_of_stored_logits(shapes_run, workplace, image_set):
    run = load_run(shapes_run)
    (temperature,) = run.calibration.temperatures
    test = run.outputs["test"]
    probabilities = softmax(test.logits.astype(float) / temperature, axis=1)
    is_correct = probabilities.argmax(axis=1) == test.targets
    limit = round(float(np.median(probabilities.max(axis=1))), 3)
    kept = probabilities.max(axis=1) >= limit
    done = run_lamina(
        "predict",
        shapes_run,
        image_set / "test",
        "--confidence-threshold",
        str(limit),
    )
    (line,) = (
        line for line in done.stderr.splitlines() if line.startswith("confidence threshold: ")
    )
    right, before = (
        wilson_interval(int(some.sum()), len(some)) for some in (is_correct[kept], is_correct)
    )
    expected = (
        *(100 * limit, 200, 100 * kept.mean()),
        *(100 * is_correct[kept].mean(), 95, 100 * right.low, 100 * right.high),
        *(100 * is_correct.mean(), 95, 100 * before.low, 100 * before.high),
    )
    assert find_numbers(line) == pytest.approx(expected, abs=0.051)


def test_numbers_have_no_confidence(workplace, image_set):
    run = train_once(NET, "shapes-pose", "--val", "0.1", "--epochs", "1")
    done = run_lamina("predict", run, image_set / "test/dark", "--confidence-threshold", "0.9")
    assert (
        "The model predicts numbers, but --confidence-threshold needs probabilities. Leave out"
        " --confidence-threshold." in done.stderr
    )


def test_predict_and_the_exported_file_use_chosen_thresholds(workplace, image_set):
    pytest.importorskip("onnxscript")
    options = ("--val", "0.1", "--epochs", "1", "--aim", "recall=0.97")
    run = train_once(NET, "shapes-attributes", *options)
    thresholds = {threshold.name: threshold for threshold in load_run(run).calibration.thresholds}
    assert all(threshold.found / threshold.positive >= 0.97 for threshold in thresholds.values())
    run_well("export", run, "aimed.onnx")
    exported = json.loads(Path("aimed.onnx.json").read_text())
    limits = dict(zip(exported["names"], exported["thresholds"], strict=True))
    assert limits == {name: np.float32(limit.value) for name, limit in thresholds.items()}
    predicted = []
    for event in events(run_well("predict", run, image_set / "test", "--json").stdout):
        above = [name for name, value in event["probabilities"].items() if value > limits[name]]
        assert event["predicted"] == above
        predicted.append(above)
    done = run_lamina("predict", run, image_set / "test", "--aim", "miss=50", "--json")
    assert done.stderr.count("threshold for miss=50 on val: ") == len(thresholds)
    assert sum(len(event["predicted"]) for event in events(done.stdout)) >= sum(map(len, predicted))
    done = run_lamina("train", NET, "--data", "shapes", "--epochs", "1", "--aim", "f1")
    assert done.returncode == 2
    assert (
        "Thresholds for f1 need yes-or-no or multi-label targets, but these are single-label."
        in done.stderr
    )


def test_labels_have_no_confidence_threshold(workplace, image_set):
    run = train_once(NET, "shapes-attributes", "--val", "0.1", "--epochs", "1")
    done = run_lamina("predict", run, image_set / "test/dark", "--confidence-threshold", "0.9")
    assert done.returncode == 2
    assert (
        "The model is multi-label, but --confidence-threshold needs exactly one class per image."
        " Leave out --confidence-threshold." in done.stderr
    )
