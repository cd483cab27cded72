"""The report page of a run: one HTML file with its results, errors, training and data."""

from __future__ import annotations

import shlex

from lamina.data import Dataset
from lamina.data.inspection import inspect, measure_spread
from lamina.deploy.document import document_of
from lamina.deploy.facts import Facts, collect_facts
from lamina.deploy.report_images import Evidence, show_confusions, show_losses, show_units
from lamina.drawing.curves import draw_curves
from lamina.drawing.metric_figures import draw_reliability, draw_scatter, draw_thresholds
from lamina.drawing.style import encode_png
from lamina.errors import LaminaError, plural
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import ClassReport, NumberReport, Report
from lamina.evaluation.words import list_lines
from lamina.markup import Markup, chart, join, table, wrap
from lamina.nets import summarize
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.text import format_percent
from lamina.training.model import Model
from lamina.training.task import Task

# of pixels: larger data sets are not checked, because it would take long
INSPECTED_BYTES = 2_000_000_000
MOST_NAMED = 5


def build_report_page(run: Run, dataset: Dataset | None = None, model: Model | None = None) -> str:
    """The report page as HTML; without data and model, it has no images and no units."""
    if dataset is not None and dataset.fingerprint != run.record.data.fingerprint:
        dataset = None
    facts = collect_facts(run)
    report = run.report
    task = run.task
    outputs = None
    confusions = losses = Markup("")
    if report is not None:
        outputs = {str(split): part for split, part in run.outputs.items()}.get(report.split)
    if report is not None and outputs is not None:
        images = None if dataset is None else dataset.splits.get(outputs.split)
        evidence = Evidence.collect(task, outputs, images)
        confusions = show_confusions(report, evidence)
        losses = show_losses(evidence)
    sections = {
        "results": ("Results", _show_results(facts, report, task, outputs)),
        "confusions": ("Confusions", confusions),
        "losses": ("Largest losses", losses),
        "training": ("Training", _show_training(run, facts, report)),
        "units": ("Units of the first layers", _show_units(model, dataset)),
        "data": ("Data", _show_data(run, dataset)),
        "model": ("Model", _show_model(run)),
        "reproduce": ("Reproducing this run", _show_reproduction(run, facts)),
    }
    kind = "smooth" if min(run.record.in_shape[1:]) > 48 else ""
    header = [wrap("h1", facts.name), *_show_head(facts, report, dataset)]
    return document_of(f"{facts.name}: lamina report", header, sections, kind)


def _show_head(facts: Facts, report: Report | None, dataset: Dataset | None) -> list[Markup]:
    lines = []
    if report is not None:
        lines.append(wrap("p", list_lines(report)[0], kind="headline"))
    lines.append(wrap("p", facts.about, kind="faint"))
    if report is None:
        lines.append(wrap("p", *facts.verdict, kind="warning"))
    if dataset is None:
        reason = "the data that the run was trained on was moved, deleted or changed."
        lines.append(wrap("p", f"This page has no images, because {reason}", kind="warning"))
    return lines


def _show_results(
    facts: Facts, report: Report | None, task: Task, outputs: Outputs | None
) -> Markup:
    if report is None:
        return Markup("")
    parts = [wrap("p", line, kind="warning") for line in facts.verdict]
    parts += [wrap("p", line) for line in list_lines(report)[1:]]
    parts.append(table(*report.table()))
    if outputs is not None and isinstance(report, NumberReport):
        scatter = encode_png(draw_scatter(report, outputs))
        parts.append(chart(scatter, "predicted against true values"))
    elif outputs is not None:
        curves = draw_thresholds(task, outputs) if task.cutoffs else None
        if curves is not None:
            parts.append(wrap("h3", "Thresholds"))
            parts.append(chart(encode_png(curves), "precision and recall by threshold"))
        reliability = encode_png(draw_reliability(task, outputs))
        parts.append(wrap("h3", "Calibration"))
        parts.append(chart(reliability, "reliability diagram", "chart narrow"))
    if isinstance(report, ClassReport) and report.rejections:
        remark = "Results if predictions with a lower probability are rejected."
        heads = ("confidence threshold", "predictions kept", "accuracy of these")
        lines = []
        for rejection in report.rejections:
            coverage = format_percent(rejection.coverage)
            accuracy = format_percent(rejection.accuracy)
            lines.append((f"{100 * rejection.limit:g} %", coverage, accuracy))
        parts.append(wrap("h3", "Confidence threshold"))
        parts.append(wrap("p", remark, kind="faint"))
        parts.append(table(heads, lines, texts=0))
    return join(parts)


def _show_training(run: Run, facts: Facts, report: Report | None) -> Markup:
    rows = run.folder.read_epochs()
    if not rows:
        return wrap("p", "No epoch has finished yet.")
    seconds = sum(row.get("train_seconds") or 0.0 for row in rows)
    epochs = plural(run.epochs or len(rows), "epoch", "epochs")
    parts = [wrap("p", f"{len(rows):,} of {epochs}, {seconds:.1f} seconds.")]
    if run.end:
        parts.append(wrap("p", run.end))
    if report is not None:
        curves = draw_curves(rows, report.score, report)
        parts.append(chart(encode_png(curves), "learning curves, and statistics of each layer"))
    parts.append(wrap("h3", "Diagnoses"))
    lines = [wrap("li", line) for line in facts.diagnoses]
    parts.append(wrap("ul", *lines) if lines else wrap("p", "No problem was found."))
    return join(parts)


def _show_units(model: Model | None, dataset: Dataset | None) -> Markup:
    if dataset is None:
        return Markup("")
    if model is None:
        return wrap("p", "Not available, because the model could not be loaded.")
    try:
        return show_units(model, dataset.train)
    except LaminaError as error:  # a custom module may have no layer whose output is a tensor
        return wrap("p", f"Not available: {error}")


def _show_data(run: Run, dataset: Dataset | None) -> Markup:
    record = run.record
    task = record.task
    channels, height, width = record.in_shape
    described = task.kind.describe(task.target_names)
    size = f"{height}×{width}×{channels}"
    parts = [wrap("p", f"{record.data.name}: {size} images, {described}.")]
    if dataset is None:
        known = [f"{len(part.targets):,} {split}" for split, part in run.outputs.items()]
        if known:
            parts.append(wrap("p", f"The model was evaluated on {' and '.join(known)} images."))
        return join(parts)
    parts.append(wrap("p", f"Splits: {dataset.split_rule}."))
    parts.append(table(("", *dataset.splits), dataset.count_rows()))
    if task.kind is REGRESSION:
        parts.append(_show_numbers(dataset))
    return join([*parts, wrap("h3", "Findings"), _show_findings(dataset)])


def _show_numbers(dataset: Dataset) -> Markup:
    rows = []
    for split, images in dataset.splits.items():
        for name, *values in measure_spread(images):
            rows.append((split, name, *(f"{value:.4g}" for value in values)))
    return table(("split", "number", "lowest", "mean", "std", "highest"), rows, texts=2)


def _show_findings(dataset: Dataset) -> Markup:
    if sum(images.pixels.nbytes for images in dataset.splits.values()) > INSPECTED_BYTES:
        return wrap("p", "The data set is too large to check here. Use lamina data DATA.")
    findings = inspect(dataset).findings
    if not findings:
        return wrap("p", "The checks of lamina data found no problems.")
    items = []
    for finding in findings:
        text = f"{finding.severity}: {finding.message}"
        names = [sighting.name for sighting in finding.images]
        if names:
            more = " …" if len(names) > MOST_NAMED else ""
            text += f" ({', '.join(names[:MOST_NAMED])}{more})"
        items.append(wrap("li", text))
    return wrap("ul", *items)


def _show_model(run: Run) -> Markup:
    record = run.record
    if record.net is not None:
        heads, rows = summarize(record.net, record.in_shape, record.task.outputs).table()
        return table(heads, rows)
    if record.timm is not None:
        return wrap("p", f"{record.net_name}, a timm net: {record.timm.name}.")
    return wrap("p", f"A custom module, whose code lamina does not store: {record.own_module}.")


def _show_reproduction(run: Run, facts: Facts) -> Markup:
    command = wrap("p", "The run was trained from Python.")
    if run.record.command:
        command = wrap("pre", shlex.join(run.record.command))
    advice = (
        "On the CPU, the weights are bit-identical if data, versions, processor type, number of"
        " threads and kernels are as above. To retrain the first epochs and compare, use lamina"
        " reproduce RUN."
    )
    origin = table((), facts.origin.items(), texts=2)
    return join([command, origin, wrap("p", advice, kind="faint")])
