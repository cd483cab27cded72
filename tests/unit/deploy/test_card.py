"""The model card: metadata that Hugging Face reads, and text that says what was measured."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from lamina.deploy.card import build_card, quote, to_yaml
from lamina.runs.run import Run
from lamina.text import escape
from lamina.training.pretrained import TimmNet
from support.report_runs import HOSTILE, NAMES, make_dataset, train_briefly

METRICS = {
    "single-label": ["accuracy", "balanced_accuracy", "expected_calibration_error"],
    "binary": [
        "accuracy",
        "balanced_accuracy",
        "average_precision",
        "auc",
        "expected_calibration_error",
    ],
    "multi-label": ["mean_average_precision", "macro_f1", "f1", "expected_calibration_error"],
    "regression": ["mae"],
}


def read_metadata(card: str) -> dict:
    start, metadata, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(metadata)


@pytest.mark.parametrize("kind", NAMES)
def test_the_metadata_are_yaml_and_hold_the_reports_figures(report_runs, kind):
    run, _ = report_runs[kind]
    found = read_metadata(build_card(run))
    assert found["license"] == "unknown"
    assert found["library_name"] == "lamina"
    assert found["pipeline_tag"] == ("other" if kind == "regression" else "image-classification")
    assert found["tags"] == ["lamina", kind]
    assert "datasets" not in found  # nobody there knows it
    assert found["metrics"] == [
        metric for metric in METRICS[kind] if metric in ("accuracy", "f1", "mae")
    ]
    ((result,),) = (model["results"] for model in found["model-index"])
    assert result["dataset"] == {"name": "pets & co", "type": "other", "split": "test"}
    assert [metric["type"] for metric in result["metrics"]] == METRICS[kind]
    value = result["metrics"][0]["value"]
    assert isinstance(value, float)
    assert value == pytest.approx(run.report.score.value, rel=1e-3)


@pytest.mark.parametrize("kind", ["single-label", "regression"])
def test_names_are_neither_markup_nor_links_nor_lines(report_runs, kind):
    card = build_card(report_runs[kind][0])
    assert HOSTILE not in card
    assert r"\<script\>alert(1)\</script\>" in card
    assert not re.search(r"(?<!\\)\](?=\()", card)
    assert card.split("---\n", 2)[2].count("\n---") == 0
    assert "\u202e" not in card


def test_marks_of_markdown_are_escaped():
    assert quote("<b> *x* | www.example.com") == r"\<b\> \*x\* \| www\.example.com"


def test_a_run_that_was_not_evaluated_has_no_metrics(tmp_path):
    card = build_card(train_briefly(tmp_path, make_dataset("single-label")))
    assert not {"metrics", "model-index"} & read_metadata(card).keys()
    assert "The model has not been evaluated" in card


def test_the_weakest_class_and_the_calibration_are_said(report_runs):
    run, _ = report_runs["single-label"]
    targets, chosen = run.outputs["test"].targets, run.outputs["test"].logits.argmax(axis=1)
    recalls = [(chosen[targets == number] == number).mean() for number in range(3)]
    (line,) = re.findall(r"^- Lowest recall: (.*)$", build_card(run), re.MULTILINE)
    assert line.endswith(
        f", {100 * min(recalls):.1f} % of {(targets == int(np.argmin(recalls))).sum()} images."
    )
    assert "calibrated on 90 val images" in build_card(run)


def test_where_all_are_right_no_class_is_the_weakest(report_runs, tmp_path):
    run, _ = report_runs["binary"]
    run = dataclasses.replace(run, path=shutil.copytree(run.path, tmp_path / "right"))
    rows = tuple(dataclasses.replace(row, metrics={"recall": 1.0}) for row in run.report.rows)
    run.folder.save_report(dataclasses.replace(run.report, rows=rows))
    assert "Lowest recall" not in build_card(run)


def test_val_is_called_what_it_is(tmp_path):
    card = build_card(train_briefly(tmp_path, make_dataset("single-label", "val")))
    assert "may have been used to choose the model" in card


@pytest.mark.parametrize(
    "value",
    [0.5, 1e-7, 1e22, -2e-9, "no", "a: b # c", '"', "ż\u2028", "\ufeff\x07", [1, None, True]],
)
def test_yaml_reads_what_was_written(value):
    read = yaml.safe_load(f"value: {to_yaml(value)}")["value"]
    assert read == (escape(value) if isinstance(value, str) else value)


def test_published_weights_that_were_fine_tuned_are_named(report_runs, tmp_path):
    run, _ = report_runs["single-label"]
    net = TimmNet("test_efficientnet.r160_in1k", "pretrained", "0123456789abcdef")
    record = dataclasses.replace(run.record, net=None, timm=net, net_name=net.net_name)
    tuned = Run(Path(shutil.copytree(run.path, tmp_path / "tuned")), record)
    found = read_metadata(build_card(tuned))
    assert found["base_model"] == "timm/test_efficientnet.r160_in1k"
    assert "base_model" not in read_metadata(build_card(run))
