from __future__ import annotations

import dataclasses
import html
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Images
from lamina.errors import LaminaError
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.intervals import Interval
from lamina.evaluation.report import Baseline, Report, Row
from lamina.targets import Score
from lamina.training.task import SingleLabel


def counts(precision: float | None, recall: float | None, f1: float | None) -> dict:
    return {"precision": precision, "recall": recall, "f1": f1}


CLASSES = Report(
    kind="single-label",
    split="test",
    images=1203,
    score=Score("accuracy", 0.9975),
    score_interval=Interval(0.9927, 0.9992),
    baseline=Baseline("majority", "always [red]dog", 0.4, 0.5975, Interval(0.55, 0.64)),
    loss=0.71234,
    metrics={"accuracy": 0.9975, "top5_accuracy": None, "balanced_accuracy": 0.49975},
    rows=(
        Row("cat", 1200, counts(0.997, 0.9995, 0.99825)),
        Row("[red]dog", 3, counts(None, 0.0, 0.0)),
        Row("hen", 0, counts(None, None, None)),
    ),
    errors=((1, 0, 3),),
    calibration_error=0.0214,
    seconds=1.5,
)
LABELS = Report(
    kind="multi-label",
    split="val",
    images=1,
    score=Score("mean_average_precision", 0.75),
    baseline=Baseline("frequencies", "label frequencies", 0.25, 0.5, Interval(0.125, 0.875)),
    loss=0.25,
    metrics={"mean_average_precision": 0.75, "macro_f1": 2 / 3, "micro_f1": 0.5, "own": 0.125},
    rows=(
        Row("furry", 1, {**counts(0.5, 1.0, 2 / 3), "average_precision": 0.75}),
        Row("winged", 0, {**counts(0.0, None, None), "average_precision": None}),
    ),
    calibration_error=0.031,
    seconds=0.5,
    data_name="zoo",
    data_fingerprint="abc",
)
NUMBERS = Report(
    kind="regression",
    split="test",
    images=20,
    score=Score("mean_absolute_error", 6.2),
    baseline=Baseline("medians", "always the medians", 22.5, 16.3, Interval(12.34567, 20.0)),
    loss=1.5,
    metrics={"mean_absolute_error": 6.2},
    rows=(
        Row("angle_degrees", 20, {"mean_absolute_error": 12.345678, "r2": 0.91}),
        Row("size_px", 20, {"mean_absolute_error": 0.05, "r2": None}),
    ),
    seconds=0.5,
)
YES_NO = dataclasses.replace(
    CLASSES,
    kind="binary",
    metrics={"accuracy": 0.9975, "average_precision": 0.875, "auc": 0.9375},
    rows=(Row("no", 2, counts(1.0, 1.0, 1.0)), Row("yes", 2, counts(1.0, 0.5, 2 / 3))),
    errors=((1, 0, 1),),
)


def test_a_report_of_classes_prints_as_a_table():
    assert str(CLASSES) == "\n".join(
        [
            "test accuracy 99.8 % (95 % interval 99.3 to 99.9 %, 1,203 images)",
            "baseline (always [red]dog): 40.0 %, gain 59.8 points (95 % interval 55.0 to 64.0)",
            "balanced accuracy 50.0 %, loss 0.7123, calibration error 2.1 % (perfect probabilities:"
            " 0.0 %; not calibrated)",
            "class     precision   recall      F1  images",
            "cat          99.7 %  100.0 %  99.8 %   1,200",
            "[red]dog          –    0.0 %   0.0 %       3",
            "hen               –        –       –       0",
            "[red]dog is predicted as cat: 3 images",
        ]
    )


def test_a_report_of_labels_prints_as_a_table():
    assert str(LABELS) == "\n".join(
        [
            "val mean average precision 75.0 % (1 image)",
            "baseline (label frequencies): 25.0 %, gain 50.0 points (95 % interval 12.5 to 87.5)",
            "macro F1 66.7 %, micro F1 50.0 %, own 0.125, loss 0.2500, calibration error 3.1 %"
            " (perfect probabilities: 0.0 %; not calibrated)",
            "label   precision   recall      F1  average precision  images",
            "furry      50.0 %  100.0 %  66.7 %             75.0 %       1",
            "winged      0.0 %        –       –                  –       0",
            "not evaluated, because no val image has them: winged",
        ]
    )


def test_a_report_of_numbers_prints_as_a_table():
    assert str(NUMBERS) == "\n".join(
        [
            "test mean absolute error 6.2, the mean of 2 numbers (20 images)",
            "baseline (always the medians): 22.5, gain 16.3 (95 % interval 12.35 to 20)",
            "loss 1.5000",
            "number         mean absolute error    R²  images",
            "angle_degrees                12.35  0.91      20",
            "size_px                       0.05     –      20",
        ]
    )


def test_of_many_absent_labels_nine_are_named():
    rows = (LABELS.rows[0], *(Row(f"label {place}", 0, {}) for place in range(1000)))
    (line,) = dataclasses.replace(LABELS, rows=rows).remarks()
    assert line.endswith("label 7, label 8 and 991 more")


def verdict(report: Report, gain: float, low: float, high: float) -> list[str]:
    """The lines of a report of that gain below the score; they are the same in a notebook."""
    value = report.score.value + gain if report.score.lower_is_better else report.score.value - gain
    interval = Interval(low, high)
    baseline = dataclasses.replace(report.baseline, value=value, gain=gain, gain_interval=interval)
    changed = dataclasses.replace(report, baseline=baseline)
    first, *lines = str(changed).splitlines()
    assert first == changed.headline()
    assert "".join(f"<p>{html.escape(line)}</p>" for line in lines[:2]) in changed._repr_html_()
    assert changed.verdict() == lines[:2]
    assert lines[2].startswith("baseline (")
    return lines[:2]


def test_a_report_names_a_baseline_that_is_not_beaten():
    steps = "Train for more steps (more epochs or smaller batches)"
    half_right = dataclasses.replace(YES_NO, images=4, errors=((0, 1, 1), (1, 0, 1)))
    assert verdict(half_right, -0.1, -0.2, -0.01) == [
        "The model is worse than the baseline (always [red]dog).",
        f"{steps} or on more images, and check that the targets are correct.",
    ]
    assert verdict(NUMBERS, 0.5, -0.5, 1.5) == [
        "The model is not measurably better than the baseline (always the medians).",
        (
            "On 20 images, a gain of 0.5 may be due to chance. Evaluate on more images, or train"
            " longer or on more images."
        ),
    ]
    assert (
        verdict(LABELS, 0.0, 0.0, 0.0)[0]
        == "The model is not measurably better than the baseline (label frequencies)."
    )
    same_predictions = dataclasses.replace(half_right, errors=((1, 0, 2),))
    assert (
        verdict(same_predictions, 0.0, -0.3, 0.3)[1]
        == "The model predicts no for 100.0 % of the images: it has hardly started to learn."
        f" {steps}."
    )
    assert (
        verdict(CLASSES, 0.0, -0.002, 0.002)[1]
        == "99.8 % of the images are cat, so accuracy is misleading. To raise the balanced"
        " accuracy, train with class_weights; set metric to balanced_accuracy to score by it."
    )


def test_the_verdict_is_said_when_the_baseline_is_beaten_or_missing():
    assert CLASSES.verdict() == ["The model is better than the baseline (always [red]dog)."]
    own = dataclasses.replace(CLASSES, score=Score("own", 0.5), baseline=None)
    assert own.verdict() == ["There is no baseline, because the score is your own metric."]
    assert str(own).splitlines()[1] == "no baseline, because the score is your own metric"


def test_images_of_one_class_are_named():
    rows = (Row("no", 4, counts(1.0, 1.0, 1.0)), Row("yes", 0, counts(None, None, None)))
    perfect = dataclasses.replace(YES_NO, images=4, rows=rows, errors=())
    assert verdict(perfect, 0.0, -0.3, 0.3) == [
        "The model is not measurably better than the baseline (always [red]dog).",
        "All images are no. Evaluate on other classes too.",
    ]


def test_without_mistakes_none_are_listed():
    perfect = dataclasses.replace(CLASSES, errors=())
    assert "is predicted as" not in str(perfect)
    assert perfect.confusion() == [[1200, 0, 0], [0, 3, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("report", "kind", "score"),
    [
        (CLASSES, "single-label", "accuracy 99.75 %"),
        (YES_NO, "binary", "accuracy 99.75 %"),
        (LABELS, "multi-label", "mean average precision 75.00 %"),
        (NUMBERS, "regression", "mean absolute error 6.2"),
    ],
)
def test_a_report_survives_json_and_has_a_score(report, kind, score):
    assert report.to_json()["kind"] == report.kind == kind
    assert str(report.score) == score
    assert report.score.lower_is_better == (kind == "regression")
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.score.value == report.to_json()["score"]["value"]
    assert report.values() == {f"{report.split}_{report.score.name}": report.score.value}


@given(
    st.text(),
    st.none() | st.floats(0, 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0),
)
def test_any_name_and_metrics_survive_json(name, fraction, loss, images):
    rows = (Row(name, images, {"recall": fraction}),) * 2
    report = dataclasses.replace(LABELS, rows=rows, loss=loss, data_name=name)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": "poem"},
            (
                "The report is damaged: report.kind must be 'single-label', 'multi-label',"
                " 'binary' or 'regression', got 'poem'. Evaluate the model again."
            ),
        ),
        (
            {"loss": "low"},
            (
                "The report is damaged: report.loss must be a number, got 'low'. Evaluate the model"
                " again."
            ),
        ),
        (
            {"rows": [LABELS.to_json()["rows"][0] | {"images": None}]},
            (
                "The report is damaged: report.rows[0].images must be a whole number, got None. "
                "Evaluate the model again."
            ),
        ),
        (
            {"rows": [{"name": "furry", "images": 3}]},
            (
                "The report is damaged: report.rows[0] lacks the field 'metrics'; its fields are"
                " name, images, metrics. Evaluate the model again."
            ),
        ),
        (
            {"errors": [[0, 1, 2, 3]]},
            (
                "The report is damaged: report.errors[0] must be a list, each item a whole number,"
                " got [0, 1, 2, 3]. Evaluate the model again."
            ),
        ),
    ],
)
def test_values_that_are_no_report_are_rejected_by_field(change, message):
    with pytest.raises(LaminaError, match=f"^{re.escape(message)}$"):
        Report.from_json(LABELS.to_json() | change)


def many_classes(count: int, name: str = "class {}") -> Report:
    rows = tuple(
        Row(name.format(place), 10, counts(0.5, 0.5, place / count if place else None))
        for place in range(count)
    )
    return dataclasses.replace(CLASSES, rows=rows, errors=())


def test_in_a_notebook_a_report_of_many_classes_shows_twenty():
    shown = many_classes(100)._repr_html_()
    assert re.findall(r">class (\d+)<", shown) == list(map(str, range(20)))
    assert "test accuracy 99.8 %" in shown
    assert "and 80 more" in shown
    assert "confusion" not in shown.split("</style>")[1]
    few = many_classes(3)._repr_html_()
    # in the table, and in both heads of the confusion
    assert re.findall(r">class (\d+)<", few) == list("012" * 3)
    assert "more" not in few


def test_of_many_classes_the_first_fifty_are_printed():
    shown = str(many_classes(500))
    assert re.findall(r"^class (\d+) ", shown, re.MULTILINE)[:50] == list(map(str, range(50)))
    assert "\nand 450 more" in shown
    assert len(shown.splitlines()) < 80
    assert "more\n" not in str(many_classes(50))


def test_a_report_of_a_thousand_classes_stores_its_errors_alone():
    """A dense matrix has a million numbers, which take seconds to read."""
    generator = np.random.default_rng(0)
    names = tuple(f"class {place}" for place in range(1000))
    targets = np.arange(2000) % 1000
    predicted = np.where(generator.random(2000) < 0.1, generator.integers(0, 1000, 2000), targets)
    files = tuple(f"{place}.png" for place in range(2000))
    images = Images(np.zeros((2000, 1, 1, 1), np.uint8), targets, names, files, "test")
    logits = 3 * np.eye(1000, dtype=np.float32)[predicted]
    report = score_logits(SingleLabel(names, (0.001,) * 1000), logits, images, 0.0)
    wrong = predicted != targets
    assert sum(count for *_, count in report.errors) == wrong.sum()
    expected = np.zeros((1000, 1000), int)
    np.add.at(expected, (targets, predicted), 1)
    assert (np.array(report.confusion()) == expected).all()
    assert len(json.dumps(report.to_json())) < 200_000


@pytest.mark.parametrize("report", [LABELS, NUMBERS, YES_NO])
def test_in_a_notebook_a_report_of_any_kind_shows_its_figures(report):
    shown = report._repr_html_()
    assert str(report).splitlines()[0] in shown
    assert shown.count("<tr>") == (6 if report is YES_NO else 3)
    assert len(repr(report)) < 100


def test_names_are_shown_without_terminal_codes_or_markup():
    hostile = "<script>\n\x1b[31m{}"
    report = many_classes(2, hostile)
    assert "\x1b" not in str(report)
    assert r"<script>\n\x1b[31m0" in str(report)
    assert r"&lt;script&gt;\n\x1b[31m0" in report._repr_html_()
    absent = dataclasses.replace(LABELS.rows[1], name="a\x1bb")
    labels = dataclasses.replace(LABELS, rows=(LABELS.rows[0], absent))
    assert r"has them: a\x1bb" in str(labels)
