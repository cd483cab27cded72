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
    QuestionScores,
    Report,
)

CLASSES = ClassReport(
    split="test",
    images=1203,
    loss=0.71234,
    seconds=1.5,
    accuracy=0.9975,
    accuracy_interval=Interval(0.9927, 0.9992),
    balanced_accuracy=0.49975,
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
    micro_f1=0.5,
    macro_f1=2 / 3,
    labels=(LabelScores("furry", 0.75, 0.5, 1.0, 2 / 3, 1), LabelScores("winged", None, 0.0, None, 0.0, 0)),
)
NUMBERS = NumberReport(
    split="test",
    images=20,
    loss=1.5,
    seconds=0.5,
    mean_absolute_error=6.2,
    numbers=(
        NumberScores("angle_degrees", 12.345678, 45.0, 20.00001, 0.91),
        NumberScores("size_px", 0.05, 0.0, 0.07, None),
    ),
)
YES_NO = dataclasses.replace(
    CLASSES,
    balanced_accuracy=0.75,
    classes=(ClassScores("no", 1.0, 1.0, 1.0, 2), ClassScores("yes", 1.0, 0.5, 2 / 3, 2)),
    confusion=((2, 0), (1, 1)),
    question=QuestionScores("metal?", 0.875, 0.9375),
)


def test_a_report_of_classes_prints_as_a_table():
    assert str(CLASSES) == "\n".join(
        [
            "test accuracy 99.8 % (95 % interval 99.3 – 99.9 %, 1,203 images)",
            "balanced accuracy 50.0 %, loss 0.7123, calibration error 2.1 %",
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
            "F1 50.0 % of all answers, 66.7 % as the mean of the labels; loss 0.2500",
            "",
            "label   average precision  precision   recall      F1  images",
            "furry              75.0 %     50.0 %  100.0 %  66.7 %       1",
            "winged                  –      0.0 %        –   0.0 %       0",
            "",
            "not judged, as no val image has them: winged",
        ]
    )


def test_a_report_of_numbers_prints_as_a_table():
    assert str(NUMBERS) == "\n".join(
        [
            "test mean absolute error 6.2, the mean of 2 numbers (20 images)",
            "loss 1.5000",
            "",
            "number         mean absolute error  always the mean  RMSE     R²",
            "angle_degrees                12.35               45    20  0.910",
            "size_px                       0.05                0  0.07      –",
        ]
    )


def test_a_report_of_a_yes_or_no_names_the_question():
    assert str(YES_NO).splitlines()[1:6] == [
        "balanced accuracy 75.0 %, loss 0.7123, calibration error 2.1 %",
        "metal?: average precision 87.5 %, ROC AUC 0.938",
        "",
        "class  precision   recall       F1  images",
        "no       100.0 %  100.0 %  100.0 %       2",
    ]
    one_sided = dataclasses.replace(YES_NO, question=QuestionScores("metal?", None, None))
    assert "metal?: average precision –, ROC AUC –\n" in str(one_sided)


@pytest.mark.parametrize(
    ("report", "later", "later_in_parts"),
    [
        (CLASSES, {"views", "reviewed_images", "balanced_accuracy", "question"}, set()),
        (LABELS, {"views", "reviewed_images", "micro_f1", "macro_f1"}, {"precision", "recall", "f1"}),
        (NUMBERS, {"views", "reviewed_images"}, {"baseline_error", "root_mean_squared_error"}),
    ],
    ids=lambda value: value.kind if isinstance(value, Report) else "",
)
def test_a_report_of_an_older_lamina_is_read_and_printed_without_what_it_lacks(report, later, later_in_parts):
    values = {name: value for name, value in report.to_json().items() if name not in later}
    parts = [
        {name: value for name, value in part.items() if name not in later_in_parts} for part in values[report.kind]
    ]
    read = Report.from_json(values | {report.kind: parts})
    known = read.to_json()
    assert (known["views"], known["reviewed_images"]) == (1, 0)
    assert all(known[name] is None for name in later - {"views", "reviewed_images"})
    assert all(known[report.kind][0][name] is None for name in later_in_parts)
    assert read.score == report.score
    assert "–" in str(read)


def test_without_mistakes_none_are_listed():
    perfect = dataclasses.replace(CLASSES, confusion=((1200, 0, 0), (0, 3, 0), (0, 0, 0)))
    assert "most confused" not in str(perfect)


@pytest.mark.parametrize("report", [CLASSES, YES_NO, LABELS, NUMBERS], ids=["classes", "binary", "labels", "numbers"])
def test_a_report_survives_json(report):
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.score == report.to_json()[report.score_name]


@given(st.text(), st.none() | st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False), st.integers(0))
def test_any_name_and_figures_survive_json(name, fraction, loss, support):
    labels = (LabelScores(name, fraction, fraction, fraction, fraction, support),) * 2
    report = dataclasses.replace(LABELS, labels=labels, loss=loss, data_name=name)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "poem"}, "Expected a report of classes, labels or numbers, got 'poem'."),
        (
            {"loss": "low"},
            "This is not a report: report.loss must be a number, got 'low'. Evaluate the model again.",
        ),
        (
            {"labels": [{"name": "furry", "average_precision": 0.5, "support": None}]},
            "This is not a report: report.labels[0].support must be a whole number, got None. "
            "Evaluate the model again.",
        ),
        (
            {"labels": [{"name": "furry", "support": 3}]},
            "This is not a report: report.labels[0] lacks the field 'average_precision'; its fields are name, "
            "average_precision, precision, recall, f1, support. Evaluate the model again.",
        ),
        (
            {"colour": "red"},
            "This is not a report: report has no field 'colour'; its fields are split, images, loss, seconds, views, "
            "reviewed_images, data_name, data_fingerprint, mean_average_precision, micro_f1, macro_f1, labels. "
            "Evaluate the model again.",
        ),
        (
            {"labels": ["furry"]},
            "This is not a report: report.labels[0] must be an object with the fields name, average_precision, "
            "precision, recall, f1, support, got 'furry'. Evaluate the model again.",
        ),
    ],
)
def test_values_that_are_no_report_are_refused_by_field(change, message):
    with pytest.raises(LaminaError, match=f"^{re.escape(message)}$"):
        Report.from_json(LABELS.to_json() | change)
