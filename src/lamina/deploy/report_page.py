"""The report page of a run: one HTML file with its results, errors, training and data."""

from __future__ import annotations

import shlex
from typing import Any

from lamina.data import Dataset
from lamina.data.inspection import inspect, measure_spread
from lamina.deploy.facts import collect_facts
from lamina.deploy.report_images import Evidence, draw_units, show_confusions, show_losses
from lamina.deploy.templates import render_page
from lamina.drawing.metric_figures import draw_reliability, draw_scatter, draw_thresholds
from lamina.drawing.style import encode_png
from lamina.errors import LaminaError, plural
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Report
from lamina.nets import summarize
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.text import format_percent
from lamina.training.model import Model
from lamina.training.task import Task

# of pixels: larger data sets are not checked, because it would take long
INSPECTED_BYTES = 2_000_000_000
MOST_NAMED = 5
SECTIONS = {
    "results": "Results",
    "confusions": "Confusions",
    "losses": "Largest losses",
    "training": "Training",
    "units": "Units of the first layers",
    "data": "Data",
    "model": "Model",
    "reproduce": "Reproducing this run",
}


def build_report_page(run: Run, dataset: Dataset | None = None, model: Model | None = None) -> str:
    """The report page as HTML; without data and model, it has no images and no units."""
    if dataset is not None and dataset.fingerprint != run.record.data.fingerprint:
        dataset = None
    facts = collect_facts(run)
    report = run.report
    values: dict[str, Any] = {
        "title": f"{facts.name}: lamina report",
        "is_smooth": min(run.record.in_shape[1:]) > 48,
        "facts": facts,
        "record": run.record,
        "dataset": dataset,
        "report": report,
        "command": shlex.join(run.record.command),
        **_describe_training(run),
        **_describe_data(run, dataset),
    }
    if run.record.net is not None:
        outputs = run.record.task.outputs
        values["layers"] = summarize(run.record.net, run.record.in_shape, outputs).table()
    if report is not None:
        values["lines"] = [report.headline(), *report.details()]
        values |= _show_results(run, report, dataset)
    if dataset is not None:
        values |= _show_units(model, dataset)
    contents = {
        "results": report,
        "confusions": "cells" in values,
        "losses": "losses" in values or "hardest" in values,
        "units": dataset,
    }
    sections = {name: title for name, title in SECTIONS.items() if contents.get(name, True)}
    return render_page("run.html", {"sections": sections, **values})


def _show_results(run: Run, report: Report, dataset: Dataset | None) -> dict[str, Any]:
    """The figures and the images of the results."""
    rejections = []
    for rejection in report.rejections:
        coverage = format_percent(rejection.coverage)
        accuracy = format_percent(rejection.accuracy)
        rejections.append((f"{100 * rejection.limit:g} %", coverage, accuracy))
    values: dict[str, Any] = {"rejections": rejections}
    outputs = {str(split): part for split, part in run.outputs.items()}.get(report.split)
    if outputs is None:
        return values
    images = None if dataset is None else dataset.splits.get(outputs.split)
    evidence = Evidence.collect(run.task, outputs, images)
    if run.task.kind is not REGRESSION:
        values |= show_confusions(report, evidence)
    return values | show_losses(evidence) | _draw_results(run.task, report, outputs)


def _draw_results(task: Task, report: Report, outputs: Outputs) -> dict[str, bytes]:
    if task.kind is REGRESSION:
        return {"scatter": encode_png(draw_scatter(report, outputs))}
    figures = {"reliability": encode_png(draw_reliability(task, outputs))}
    curves = draw_thresholds(task, outputs) if task.cutoffs else None
    if curves is not None:
        figures["thresholds"] = encode_png(curves)
    return figures


def _describe_training(run: Run) -> dict[str, Any]:
    rows = run.folder.read_epochs()
    values: dict[str, Any] = {"rows": rows, "end": run.end}
    if rows:
        seconds = sum(row.get("train_seconds") or 0.0 for row in rows)
        epochs = plural(run.epochs or len(rows), "epoch", "epochs")
        values["trained"] = f"{len(rows):,} of {epochs}, {seconds:.1f} seconds."
        values["curves"] = encode_png(run.plot())
    return values


def _show_units(model: Model | None, dataset: Dataset) -> dict[str, Any]:
    if model is None:
        return {"units_problem": "Not available, because the model could not be loaded."}
    try:
        return {"units": draw_units(model, dataset.train)}
    except LaminaError as error:  # a custom module may have no layer whose output is a tensor
        return {"units_problem": f"Not available: {error}"}


def _describe_data(run: Run, dataset: Dataset | None) -> dict[str, Any]:
    record = run.record
    task = record.task
    channels, height, width = record.in_shape
    kind = task.kind.describe(task.target_names)
    described = f"{record.data.name}: {height}×{width}×{channels} images, {kind}."
    if dataset is None:
        known = [f"{len(part.targets):,} {split}" for split, part in run.outputs.items()]
        return {"described": described, "evaluated": " and ".join(known)}
    spread = []
    if task.kind is REGRESSION:
        for split, images in dataset.splits.items():
            for name, *numbers in measure_spread(images):
                spread.append((split, name, *(f"{number:.4g}" for number in numbers)))
    return {"described": described, "spread": spread, "findings": _list_findings(dataset)}


def _list_findings(dataset: Dataset) -> list[str] | None:
    """The findings as text; ``None`` if the data set is too large to be checked here."""
    if sum(images.pixels.nbytes for images in dataset.splits.values()) > INSPECTED_BYTES:
        return None
    lines = []
    for finding in inspect(dataset).findings:
        text = f"{finding.severity}: {finding.message}"
        names = [sighting.name for sighting in finding.images]
        if names:
            more = " …" if len(names) > MOST_NAMED else ""
            text += f" ({', '.join(names[:MOST_NAMED])}{more})"
        lines.append(text)
    return lines
