"""Reports in words: verdict, advice, lines, tables and HTML. The numbers are in the reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from lamina.errors import plural
from lamina.markup import Markup, card, join, matrix, note, short_table, wrap
from lamina.metrics import METRICS
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Score
from lamina.text import escape, format_percent, format_table

if TYPE_CHECKING:
    from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport, Report

Column: TypeAlias = tuple[str, str, Callable[[Any], str]]
"""The head, the attribute that the column shows, and how."""
PRINTED_ROWS = 50  # classes, labels or numbers; report.table() and --json have all
MATRIX_CLASSES = 20  # a notebook shows no confusion matrix for more classes
MAJORITY_FRACTION = 0.9  # of the images in one class: accuracy is misleading
SAME_CLASS_FRACTION = 0.95  # of the predictions: the model has hardly started to learn
METRIC_TITLES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}
"""The metrics that the lines of a report show, if it has them."""


def describe(report: Report) -> str:
    """The report as text: verdict, metrics, and a table."""
    heads, rows = report.table()
    table = format_table(heads, rows, most=PRINTED_ROWS)
    lines = [*find_verdict(report), *list_lines(report), "", table]
    remarks = _describe_remarks(report)
    if remarks:
        lines += ["", remarks]
    return "\n".join(lines)


def to_html(report: Report) -> str:
    """The report as a card in a notebook."""
    lines = [wrap("p", line) for line in (*find_verdict(report), *list_lines(report))]
    return card(repr(report), *lines, short_table(*report.table()), _show_mistakes(report))


def find_verdict(report: Report) -> list[str]:
    """Two lines, a verdict and advice, if the model does not beat the baseline; else nothing."""
    baseline = report.baseline
    if baseline is None or baseline.is_beaten:
        return []
    is_worse = baseline.gain_interval is not None and baseline.gain_interval.high < 0
    comparison = "worse than" if is_worse else "not measurably better than"
    verdict = f"The model is {comparison} the {describe_baseline(report)}."
    advice = ""
    if report.kind in (SINGLE_LABEL, BINARY):
        advice = _advise_on_classes(cast("ClassReport", report), baseline.gain)
    return [verdict, advice or _advise(report, baseline.gain)]


def give_verdict(report: Report) -> list[str]:
    """The verdict, even if the model beats the baseline."""
    if report.baseline is None:
        return [f"There is {describe_baseline(report)}."]
    return find_verdict(report) or [f"The model is better than the {describe_baseline(report)}."]


def _advise(report: Report, gain: float) -> str:
    if gain > 0:
        images = count_images(report.images, report.groups)
        return (
            f"On {images}, a gain of {_format_gain(report.score, gain)} may be due to chance."
            " Evaluate on more images, or train longer or on more images."
        )
    return (
        "Train for more steps (more epochs or smaller batches) or on more images, and check that"
        " the targets are correct."
    )


def _advise_on_classes(report: ClassReport, gain: float) -> str:
    """What to try if one class makes up the images or the predictions; else nothing."""
    names = [scores.name for scores in report.classes]
    support = [sum(row) for row in report.confusion]
    largest = names[support.index(max(support))]
    name = escape(largest)
    share = max(support) / report.images
    if share == 1:
        reason = ", so the baseline is always correct" if largest == report.majority else ""
        return f"All images are {name}{reason}. Evaluate on other classes too."
    if share >= MAJORITY_FRACTION and report.score.name == "accuracy":
        evaluated = [name for name, images in zip(names, support, strict=True) if images]
        guessed = evaluated.count(report.majority) / len(evaluated)
        return (
            f"{format_percent(share)} of the images are {name}, so accuracy is misleading; the"
            f" baseline has a balanced accuracy of {format_percent(guessed)}. To raise the balanced"
            " accuracy, train with class_weights; set metric to balanced_accuracy to score by it."
        )
    predictions = [sum(column) for column in zip(*report.confusion, strict=True)]
    most = max(predictions)
    if gain > 0 or most < SAME_CLASS_FRACTION * report.images:
        return ""
    name = escape(names[predictions.index(most)])
    return (
        f"The model predicts {name} for {format_percent(most / report.images)} of the images: it"
        " has hardly started to learn. Train for more steps (more epochs or smaller batches)."
    )


def describe_baseline(report: Report) -> str:
    """The baseline with its prediction, such as ``baseline (always cat)``."""
    if report.baseline is None:
        return "no baseline, because the score is your own metric"
    constant = report.baseline.constant
    if constant == "majority":
        return f"baseline (always {escape(cast('ClassReport', report).majority)})"
    many = "s" if _count_numbers(report) > 1 else ""
    predictions = {
        "positive": "every label" if report.kind is MULTI_LABEL else "always yes",
        "frequencies": "label frequencies",
        "frequent": "the most frequent labels",
        "medians": f"always the median{many}",
        "means": f"always the mean{many}",
    }
    return f"baseline ({predictions[constant]})"


def _count_numbers(report: Report) -> int:
    return len(cast("NumberReport", report).numbers) if report.kind is REGRESSION else 0


def count_images(images: int, groups: int | None) -> str:
    """The number of images and, if there are any, of their groups."""
    count = plural(images, "image", "images")
    return count if groups is None else f"{count} in {plural(groups, 'group', 'groups')}"


def describe_deviation(score: Score, deviation: float | None) -> str:
    """The standard deviation over seeds, excluding variation due to images, to follow a mean."""
    if deviation is None:
        return ""
    if deviation == 0:
        return " (standard deviation over seeds too small to measure with these images)"
    return f" (standard deviation over seeds {_format_gain(score, deviation, 2)})"


def describe_score(report: Report) -> str:
    """The score with its interval and the number of images."""
    score = report.score
    words = f"{report.split} {score.title} {score.format(score.value, 1)}"
    numbers = _count_numbers(report)
    if numbers > 1 and report.baseline is not None:
        words += f", the mean of {numbers} numbers"
    images = count_images(report.images, report.groups)
    if report.score_interval is None:
        return f"{words} ({images})"
    low = score.format(report.score_interval.low, 1).removesuffix(" %")
    high = score.format(report.score_interval.high, 1)
    return f"{words} (95 % interval {low} to {high}, {images})"


def list_lines(report: Report) -> list[str]:
    """The metrics as lines of text.

    First come an undefined metric, the score and the baseline; last come custom metrics.
    """
    lines = [] if report.undefined is None else [describe_undefined(report)]
    lines += [describe_score(report), _describe_gain(report)]
    if report.kind is REGRESSION:
        lines.append(f"loss {report.loss:.4f}")
    else:
        lines.append(_describe_others(cast("ClassReport | LabelReport", report)))
    if report.kind is BINARY:
        lines.append(_describe_question(cast("ClassReport", report)))
    for name, value in report.metrics.items():
        if name != report.score.name:
            lines.append(f"{report.split} {name} {_format(value, '.4g')}")
    return lines


def describe_undefined(report: Report) -> str:
    """Why the score is not the metric of the recipe."""
    name = report.undefined or ""
    images = plural(report.images, "image", "images")
    reason = f"all targets of {images} are equal"
    if name not in METRICS:
        reason = "it is your own metric and its function was not passed"
    instead = report.score.title
    title = Score(name, 0.0).title
    return f"{report.split} {title} is undefined, because {reason}; the score is the {instead}"


def _describe_gain(report: Report) -> str:
    baseline = report.baseline
    if baseline is None:
        return describe_baseline(report)
    value = report.score.format(baseline.value, 1)
    text = f"{describe_baseline(report)}: {value}"
    if baseline.constant == "frequencies":
        micro_f1 = cast("LabelReport", report).baseline_micro_f1
        text += f", micro F1 {format_percent(micro_f1)}"
    text += f", gain {_format_gain(report.score, baseline.gain)}"
    if baseline.gain_interval is None:
        return text
    low = _format_gain(report.score, baseline.gain_interval.low).removesuffix(" points")
    high = _format_gain(report.score, baseline.gain_interval.high).removesuffix(" points")
    return f"{text} (95 % interval {low} to {high})"


def _format_gain(score: Score, gain: float, decimals: int = 1) -> str:
    """A gain in percentage points; for regression, in the unit of the numbers."""
    return f"{100 * gain:.{decimals}f} points" if score.is_fraction else f"{gain:.4g}"


def _describe_others(report: ClassReport | LabelReport) -> str:
    """The metrics that are defined, without the score; the loss, and the calibration error."""
    metrics = {title: getattr(report, name, None) for name, title in METRIC_TITLES.items()}
    parts = [
        f"{title} {format_percent(value)}"
        for title, value in metrics.items()
        if title != report.score.title and value is not None
    ]
    before = "not calibrated"
    if report.uncalibrated_error is not None:
        before = f"{format_percent(report.uncalibrated_error)} before calibration"
        if report.split == "val":
            before += "; the calibration was fitted to these images"
    floor = f"perfect probabilities: {format_percent(report.calibration_floor)}"
    error = f"calibration error {format_percent(report.calibration_error)} ({floor}; {before})"
    return ", ".join([*parts, f"loss {report.loss:.4f}", error])


def _describe_question(report: ClassReport) -> str:
    question = report.question
    assert question is not None  # noqa: S101  as the report is binary
    precision = format_percent(question.average_precision)
    area = _format(question.roc_auc, ".3f")
    return f"{escape(question.name)}: average precision {precision}, ROC AUC {area}"


def tabulate(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The column heads, and a row for each class, label or number."""
    name = {MULTI_LABEL: "labels", REGRESSION: "numbers"}.get(report.kind, "classes")
    columns = COLUMNS[name]
    rows = [
        tuple(show(getattr(scores, attribute)) for _, attribute, show in columns)
        for scores in getattr(report, name)
    ]
    return tuple(head for head, _, _ in columns), rows


def _describe_remarks(report: Report) -> str:
    """Text below the table: the most frequent errors, or labels that no image has."""
    if report.kind is REGRESSION:
        return ""
    if report.kind is MULTI_LABEL:
        labels = cast("LabelReport", report).labels
        absent = ", ".join(escape(scores.name) for scores in labels if not scores.support)
        if not absent:
            return ""
        return f"not evaluated, because no {report.split} image has them: {absent}"
    classes = cast("ClassReport", report)
    support = {scores.name: scores.support for scores in classes.classes}
    rows = [
        (truth, predicted, f"{images:,}", format_percent(images / support[truth]))
        for truth, predicted, images in classes.most_confused()
    ]
    heads = ("true class", "predicted", "images", "share of class")
    return format_table(heads, rows, texts=2) if rows else ""


def _show_mistakes(report: Report) -> Markup:
    """What a notebook shows below the table: the remarks, or the confusion matrix."""
    if report.kind in (MULTI_LABEL, REGRESSION):
        remarks = _describe_remarks(report)
        return join([note(remarks)] if remarks else [])
    classes = cast("ClassReport", report)
    names = [scores.name for scores in classes.classes]
    if not 1 < len(names) <= MATRIX_CLASSES:
        return join([])
    rows = [
        (name, [(f"{images:,}", images / max(1, sum(counts))) for images in counts])
        for name, counts in zip(names, classes.confusion, strict=True)
    ]
    heading = note("rows: true class, columns: predicted class")
    return join([heading, matrix(names, rows, "true class")])


def _format(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


COUNTS: tuple[Column, ...] = (
    ("precision", "precision", format_percent),
    ("recall", "recall", format_percent),
    ("F1", "f1", format_percent),
    ("images", "support", "{:,}".format),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "classes": (("class", "name", str), *COUNTS),
    "labels": (
        ("label", "name", str),
        ("average precision", "average_precision", format_percent),
        *COUNTS,
    ),
    "numbers": (
        ("number", "name", str),
        ("mean absolute error", "mean_absolute_error", partial(_format, spec=".4g")),
        ("baseline error", "baseline_error", partial(_format, spec=".4g")),
        ("RMSE", "root_mean_squared_error", partial(_format, spec=".4g")),
        ("R²", "r2", partial(_format, spec=".3f")),
    ),
}
"""For each kind of rows in a report, the columns of the table."""
