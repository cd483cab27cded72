from __future__ import annotations

import dataclasses
import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.evaluation.intervals import Interval
from lamina.evaluation.reports import Baseline, ClassReport, LabelReport, NumberReport, Report
from lamina.evaluation.scores import ClassScores, LabelScores, NumberScores, QuestionScores

CLASSES = ClassReport(
    split="test",
    images=1203,
    loss=0.71234,
    seconds=1.5,
    baseline=Baseline("majority", 0.4, 0.5975, Interval(0.55, 0.64)),
    majority="[red]dog",
    accuracy=0.9975,
    score_interval=Interval(0.9927, 0.9992),
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
    calibration_error=0.031,
    split="val",
    images=1,
    loss=0.25,
    seconds=0.5,
    data_name="zoo",
    data_fingerprint="abc",
    baseline=Baseline("frequencies", 0.25, 0.5, Interval(0.125, 0.875)),
    baseline_micro_f1=0.4,
    mean_average_precision=0.75,
    micro_f1=0.5,
    macro_f1=2 / 3,
    labels=(
        LabelScores("furry", 0.5, 1.0, 2 / 3, 1, 0.75),
        LabelScores("winged", 0.0, None, 0.0, 0, None),
    ),
)
NUMBERS = NumberReport(
    split="test",
    images=20,
    loss=1.5,
    seconds=0.5,
    baseline=Baseline("medians", 22.5, 16.3, Interval(12.34567, 20.0)),
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
            "test accuracy 99.8 % (95 % interval 99.3 to 99.9 %, 1,203 images)",
            "baseline (always [red]dog): 40.0 %, gain 59.8 points (95 % interval 55.0 to 64.0)",
            "balanced accuracy 50.0 %, loss 0.7123, calibration error 2.1 % (perfect probabilities:"
            " 0.0 %; not calibrated)",
            "",
            "class     precision   recall      F1  images",
            "cat          99.7 %  100.0 %  99.8 %   1,200",
            "[red]dog          –    0.0 %   0.0 %       3",
            "hen               –        –       –       0",
            "",
            "true class  predicted  images  share of class",
            "[red]dog    cat             3         100.0 %",
        ]
    )


def test_a_report_of_labels_prints_as_a_table():
    assert str(LABELS) == "\n".join(
        [
            "val mean average precision 75.0 % (1 image)",
            (
                "baseline (label frequencies): 25.0 %, micro F1 40.0 %, gain 50.0 points (95 %"
                " interval 12.5 to 87.5)"
            ),
            (
                "micro F1 50.0 %, macro F1 66.7 %, loss 0.2500, calibration error 3.1 %"
                " (perfect probabilities: 0.0 %; not"
                " calibrated)"
            ),
            "",
            "label   average precision  precision   recall      F1  images",
            "furry              75.0 %     50.0 %  100.0 %  66.7 %       1",
            "winged                  –      0.0 %        –   0.0 %       0",
            "",
            "not evaluated, because no val image has them: winged",
        ]
    )


def test_a_report_of_numbers_prints_as_a_table():
    assert str(NUMBERS) == "\n".join(
        [
            "test mean absolute error 6.2, the mean of 2 numbers (20 images)",
            "baseline (always the medians): 22.5, gain 16.3 (95 % interval 12.35 to 20)",
            "loss 1.5000",
            "",
            "number         mean absolute error  baseline error  RMSE     R²",
            "angle_degrees                12.35              45    20  0.910",
            "size_px                       0.05               0  0.07      –",
        ]
    )


def test_a_report_of_a_yes_or_no_names_the_question():
    assert str(YES_NO).splitlines()[2:7] == [
        "balanced accuracy 75.0 %, loss 0.7123, calibration error 2.1 % (perfect probabilities:"
        " 0.0 %; not calibrated)",
        "metal?: average precision 87.5 %, ROC AUC 0.938",
        "",
        "class  precision   recall       F1  images",
        "no       100.0 %  100.0 %  100.0 %       2",
    ]
    one_sided = dataclasses.replace(YES_NO, question=QuestionScores("metal?", None, None))
    assert "metal?: average precision –, ROC AUC –\n" in str(one_sided)


def verdict(report: Report, gain: float, low: float, high: float) -> list[str]:
    """The first two lines of a report of that gain; they are the same in a notebook."""
    value = report.score.value + gain if report.score.lower_is_better else report.score.value - gain
    interval = Interval(low, high)
    baseline = dataclasses.replace(report.baseline, value=value, gain=gain, gain_interval=interval)
    changed = dataclasses.replace(report, baseline=baseline)
    lines = str(changed).splitlines()
    assert "".join(f"<p>{html.escape(line)}</p>" for line in lines[:2]) in changed._repr_html_()
    assert lines[2].startswith(f"{report.split} {report.score.name.replace('_', ' ')} ")
    return lines[:2]


def test_a_report_begins_with_a_baseline_that_is_not_beaten():
    steps = "Train for more steps (more epochs or smaller batches)"
    half_right = dataclasses.replace(
        YES_NO, accuracy=0.5, images=4, majority="yes", confusion=((1, 1), (1, 1))
    )
    assert verdict(half_right, -0.1, -0.2, -0.01) == [
        "The model is worse than the baseline (always yes).",
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
    same_predictions = dataclasses.replace(half_right, confusion=((2, 0), (2, 0)))
    assert (
        verdict(same_predictions, 0.0, -0.3, 0.3)[1]
        == "The model predicts no for 100.0 % of the images: it has hardly started to learn."
        f" {steps}."
    )
    assert (
        verdict(CLASSES, 0.0, -0.002, 0.002)[1]
        == "99.8 % of the images are cat, so accuracy is misleading; the baseline has a"
        " balanced accuracy of 50.0 %. To raise the balanced accuracy, train with class_weights;"
        " set metric to balanced_accuracy to score by it."
    )


def test_no_model_beats_a_baseline_that_is_always_correct():
    matrix = ((YES_NO.images, 0), (0, 0))
    perfect = dataclasses.replace(YES_NO, accuracy=1.0, majority="no", confusion=matrix)
    assert verdict(perfect, 0.0, -0.3, 0.3) == [
        "The model is not measurably better than the baseline (always no).",
        "All images are no, so the baseline is always correct. Evaluate on other classes too.",
    ]


def test_without_mistakes_none_are_listed():
    perfect = dataclasses.replace(CLASSES, confusion=((1200, 0, 0), (0, 3, 0), (0, 0, 0)))
    assert "true class" not in str(perfect)


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
    assert report.to_json()["kind"] == report.kind.name == kind
    assert str(report.score) == score
    assert report.score.lower_is_better == (kind == "regression")
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.score.value == report.to_json()[report.score.name]
    assert report.headline() == {f"{report.split}_{report.score.name}": report.score.value}


@given(
    st.text(),
    st.none() | st.floats(0, 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0),
)
def test_any_name_and_metrics_survive_json(name, fraction, loss, support):
    labels = (LabelScores(name, fraction, fraction, fraction, support, fraction),) * 2
    report = dataclasses.replace(LABELS, labels=labels, loss=loss, data_name=name)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": "poem"},
            (
                "The report's kind is 'poem'; it must be one of single-label, binary, multi-label,"
                " regression. Evaluate the model again."
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
            {"labels": [LABELS.to_json()["labels"][0] | {"support": None}]},
            (
                "The report is damaged: report.labels[0].support must be a whole number, got None. "
                "Evaluate the model again."
            ),
        ),
        (
            {"labels": [{"name": "furry", "support": 3}]},
            (
                "The report is damaged: report.labels[0] lacks the field 'precision'; its fields"
                " are name, precision, recall, f1, support, average_precision. Evaluate the model"
                " again."
            ),
        ),
        (
            {"color": "red"},
            (
                "The report is damaged: report has no field 'color'; its fields are split, images,"
                " loss, seconds, baseline, metrics, data_name,"
                " data_fingerprint, chosen_score, undefined, score_interval, groups,"
                " mean_average_precision, micro_f1, baseline_micro_f1, macro_f1, calibration_error,"
                " labels, uncalibrated_error, calibration_floor. Evaluate the model again."
            ),
        ),
        (
            {"labels": ["furry"]},
            (
                "The report is damaged: report.labels[0] must be an object with the fields name,"
                " precision, recall, f1, support, average_precision, got 'furry'. Evaluate the"
                " model again."
            ),
        ),
    ],
)
def test_values_that_are_no_report_are_rejected_by_field(change, message):
    with pytest.raises(LaminaError, match=f"^{re.escape(message)}$"):
        Report.from_json(LABELS.to_json() | change)


def many_classes(count: int, name: str = "class {}") -> ClassReport:
    classes = tuple(
        ClassScores(name.format(place), 0.5, 0.5, place / count if place else None, 10)
        for place in range(count)
    )
    return dataclasses.replace(CLASSES, classes=classes, confusion=((0,) * count,) * count)


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
    question = dataclasses.replace(YES_NO, question=QuestionScores("a\nb<i>", 0.5, 0.5))
    assert r"a\nb<i>: average" in str(question)
    assert r"a\nb&lt;i&gt;: average" in question._repr_html_()
    labels = dataclasses.replace(LABELS, labels=(LabelScores("a\x1bb", None, None, None, 0, None),))
    assert r"has them: a\x1bb" in str(labels)
