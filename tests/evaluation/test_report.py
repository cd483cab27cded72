from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.evaluation import (
    ClassReport,
    ClassScores,
    Interval,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
    Report,
)

CLASSES = ClassReport(
    split="test",
    images=1203,
    loss=0.71234,
    seconds=1.5,
    accuracy=0.9975,
    accuracy_interval=Interval(0.9927, 0.9992),
    calibration_error=0.0214,
    classes=(
        ClassScores("cat", 0.997, 0.9995, 0.99825, 1200),
        ClassScores("[red]dog", None, 0.0, 0.0, 3),
        ClassScores("hen", None, None, None, 0),
    ),
    confusion=((1200, 0, 0), (3, 0, 0), (0, 0, 0)),
)
LABELS = LabelReport(
    split="val",
    images=1,
    loss=0.25,
    seconds=0.5,
    data_name="zoo",
    data_fingerprint="abc",
    mean_average_precision=0.75,
    labels=(LabelScores("furry", 0.75, 1), LabelScores("winged", None, 0)),
)
NUMBERS = NumberReport(
    split="test",
    images=20,
    loss=1.5,
    seconds=0.5,
    mean_absolute_error=6.2,
    numbers=(NumberScores("angle_degrees", 12.345678, 0.91), NumberScores("size_px", 0.05, None)),
)


def test_a_report_of_classes_prints_as_a_table():
    assert str(CLASSES) == "\n".join(
        [
            "test accuracy 99.8 % (95 % interval 99.3 – 99.9 %, 1,203 images)",
            "loss 0.7123, calibration error 2.1 %",
            "",
            "class     precision   recall      F1  images",
            "cat          99.7 %  100.0 %  99.8 %   1,200",
            "[red]dog          –    0.0 %   0.0 %       3",
            "hen               –        –       –       0",
            "",
            "most confused  taken for  images  of the class",
            "[red]dog       cat             3       100.0 %",
        ]
    )


def test_a_report_of_labels_prints_as_a_table():
    assert str(LABELS) == "\n".join(
        [
            "val mean average precision 75.0 % (1 image)",
            "loss 0.2500",
            "",
            "label   average precision  images",
            "furry              75.0 %       1",
            "winged                  –       0",
        ]
    )


def test_a_report_of_numbers_prints_as_a_table():
    assert str(NUMBERS) == "\n".join(
        [
            "test mean absolute error 6.2 (20 images)",
            "loss 1.5000",
            "",
            "number         mean absolute error     R²",
            "angle_degrees                12.35  0.910",
            "size_px                       0.05      –",
        ]
    )


def test_without_mistakes_none_are_listed():
    perfect = dataclasses.replace(CLASSES, confusion=((1200, 0, 0), (0, 3, 0), (0, 0, 0)))
    assert "most confused" not in str(perfect)


@pytest.mark.parametrize("report", [CLASSES, LABELS, NUMBERS], ids=lambda report: report.kind)
def test_a_report_survives_json(report):
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.score == report.to_json()[report.score_name]


@given(st.text(), st.none() | st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False), st.integers(0))
def test_any_name_and_figures_survive_json(name, fraction, loss, support):
    labels = (LabelScores(name, fraction, support),) * 2
    report = dataclasses.replace(LABELS, labels=labels, loss=loss, data_name=name)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "poem"}, "Expected a report of classes, labels or numbers, got 'poem'."),
        (
            {"loss": "low"},
            "This is not a report: report.loss should be float, but is 'low'. Evaluate the model again.",
        ),
        (
            {"labels": [{"name": "furry", "average_precision": 0.5, "support": None}]},
            "This is not a report: report.labels[0].support should be int, but is None. Evaluate the model again.",
        ),
        (
            {"labels": [{"name": "furry", "support": 3}]},
            "This is not a report: report.labels[0] misses average_precision; "
            "its fields are name, average_precision, support. Evaluate the model again.",
        ),
        (
            {"colour": "red"},
            "This is not a report: report does not know colour; its fields are split, images, loss, seconds, views, "
            "reviewed_images, data_name, data_fingerprint, mean_average_precision, labels. Evaluate the model again.",
        ),
        (
            {"labels": ["furry"]},
            "This is not a report: report.labels[0] should have the fields name, average_precision, support, "
            "but is 'furry'. Evaluate the model again.",
        ),
    ],
)
def test_values_that_are_no_report_are_refused_by_field(change, message):
    with pytest.raises(LaminaError, match=f"^{re.escape(message)}$"):
        Report.from_json(LABELS.to_json() | change)
