"""predict --confidence-threshold and --coverage: predictions kept, and their accuracy."""

from __future__ import annotations

import csv
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


def test_uncertain_predictions_are_rejected_and_sets_are_shown(shapes_run, workplace, image_set):
    image = image_set / "test/dark"
    done = run_well(
        "predict",
        shapes_run,
        image,
        "--confidence-threshold",
        "0.99",
        "--coverage",
        "0.8",
        "--json",
    )
    assert "confidence threshold: 99 %; on 200 test images, " in done.stderr
    assert (
        "coverage: 80 %, fitted to 80 val images, so about 71.3 to 88.3 % of new images (95 %"
        " interval); measured on 200 test images: " in done.stderr
    )
    for event in events(done.stdout):
        ranked = sorted(event["probabilities"], key=event["probabilities"].get, reverse=True)
        assert event["rejected"] is (event["probabilities"][ranked[0]] < 0.99)
        assert event["set"] == ranked[: len(event["set"])]
        assert len(event["set"]) > 1  # a net that has hardly learned
    done = run_well("predict", shapes_run, image, "--confidence-threshold", "0.99")
    lines = done.stdout.splitlines()[1:]
    count = len(list(image.glob("*.png")))
    assert len(lines) == count
    assert all(line.split("\t")[1].startswith("rejected (") for line in lines)
    run_lamina(
        "predict",
        shapes_run,
        image,
        "--confidence-threshold",
        "0.01",
        "--coverage",
        "0.8",
        "--output",
        "all.csv",
    )
    with Path("all.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == count
    assert {row["rejected"] for row in rows} == {"no"}
    assert all(row["predicted"] == row["set"].split(";")[0] for row in rows)


def test_the_effect_of_a_threshold_is_that_of_stored_logits(shapes_run, workplace, image_set):
    run = load_run(shapes_run)
    (temperature,) = run.calibration.temperatures
    val, test = (run.outputs[split] for split in ("val", "test"))
    held, probabilities = (
        softmax(outputs.logits.astype(float) / temperature, axis=1) for outputs in (val, test)
    )
    is_correct = probabilities.argmax(axis=1) == test.targets
    limit = round(float(np.median(probabilities.max(axis=1))), 3)
    kept = probabilities.max(axis=1) >= limit
    done = run_lamina(
        "predict",
        shapes_run,
        image_set / "test",
        "--confidence-threshold",
        str(limit),
        "--coverage",
        "0.8",
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
    # Of n val images, the ceil(0.8 (n + 1)) with the most probable true class set the limit.
    own = np.sort(held[np.arange(80), val.targets])[::-1]
    sets = probabilities >= own[65 - 1] * (1 - 1e-6)
    sets[np.arange(200), probabilities.argmax(axis=1)] = True
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("coverage: "))
    covered = sets[np.arange(200), test.targets]
    measured, fitted = wilson_interval(int(covered.sum()), 200), wilson_interval(65, 80)
    expected = (
        *(80, 80, 100 * fitted.low, 100 * fitted.high, 95, 200),
        *(
            100 * covered.mean(),
            95,
            100 * measured.low,
            100 * measured.high,
            sets.sum(axis=1).mean(),
        ),
    )
    assert find_numbers(line) == pytest.approx(expected, abs=0.051)


def test_numbers_get_intervals(workplace, image_set):
    run = train_once(NET, "shapes-pose", "--val", "0.1", "--epochs", "1")
    done = run_well("predict", run, image_set / "test/dark", "--coverage", "0.9", "--json")
    val, test = (load_run(run).outputs[split] for split in ("val", "test"))
    apart = [np.abs(outputs.logits - outputs.targets) for outputs in (val, test)]
    half_widths = np.sort(apart[0], axis=0)[73 - 1]
    names = load_run(run).record.task.target_names
    for event in events(done.stdout):
        assert event["half_widths"] == pytest.approx(
            dict(zip(names, half_widths.tolist(), strict=True)), rel=1e-4
        )
    shares = 100 * (apart[1] <= half_widths).mean(axis=0)
    numbers = find_numbers(done.stderr.partition("\ncoverage: ")[2])
    assert [*numbers[:2], *numbers[4:7], numbers[10]] == pytest.approx(
        [90, 80, 95, 200, *shares], abs=0.051
    )
    done = run_lamina("predict", run, image_set / "test/dark", "--confidence-threshold", "0.9")
    assert (
        "The model predicts numbers, but --confidence-threshold needs probabilities. Use --coverage"
        " 0.9." in done.stderr
    )


def test_a_coverage_that_val_cannot_support_is_a_warning(workplace, image_set):
    run = train_once(NET, "shapes", "--val", "0.045", "--size", "8", "--epochs", "1")
    done = run_well("predict", run, image_set / "test/dark/0.png", "--coverage", "0.9")
    assert (
        "warning: --coverage is 90 %, but val has only 36 images, so as few as 82 % of new images"
        " may be covered. For a reliable coverage, val needs about 139 images; use a larger --val."
        in done.stderr
    )


def test_predict_and_the_exported_file_use_chosen_thresholds(workplace, image_set):
    pytest.importorskip("onnxscript")
    options = ("--val", "0.1", "--epochs", "1", "--aim", "recall=0.97")
    run = train_once(NET, "shapes-attributes", *options)
    thresholds = {threshold.name: threshold for threshold in load_run(run).calibration.thresholds}
    assert all(threshold.found / threshold.positive >= 0.97 for threshold in thresholds.values())
    run_well("export", run, "aimed.onnx")
    predicted = []
    for model in (run, "aimed.onnx"):
        done = run_well("predict", model, image_set / "test", "--json")
        printed = events(done.stdout)
        for event in printed:
            above = [
                name
                for name, value in event["probabilities"].items()
                if value > thresholds[name].value
            ]
            assert event["predicted"] == above
        predicted.append([event["predicted"] for event in printed])
    assert predicted[0] == predicted[1]
    done = run_lamina("predict", run, image_set / "test", "--aim", "miss=50", "--json")
    assert done.stderr.count("threshold for miss=50 on val: ") == len(thresholds)
    assert sum(len(event["predicted"]) for event in events(done.stdout)) >= sum(
        map(len, predicted[0])
    )
    done = run_lamina("predict", "aimed.onnx", image_set / "test", "--aim", "f1")
    assert "An exported file has a net for the CPU" in done.stderr
    assert "Leave out --aim." in done.stderr
    done = run_lamina("train", NET, "--data", "shapes", "--epochs", "1", "--aim", "f1")
    assert done.returncode == 2
    assert (
        "Thresholds for f1 need yes-or-no or multi-label targets, but these are single-label."
        in done.stderr
    )


def test_labels_have_no_sets(workplace, image_set):
    options = ("--val", "0.1", "--epochs", "1", "--aim", "recall=0.97")
    run = train_once(NET, "shapes-attributes", *options)
    done = run_lamina("predict", run, image_set / "test/dark", "--coverage", "0.9")
    assert done.returncode == 2
    assert (
        "The model is multi-label, but --coverage needs exactly one class per image. Leave out"
        " --coverage." in done.stderr
    )
