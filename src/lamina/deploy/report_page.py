"""One self-contained page about a run: what was trained on what, how well it answers, where it fails."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from lamina.data import Dataset
from lamina.data.inspection import inspect, measure_spread
from lamina.data.splits import Split
from lamina.deploy.document import document
from lamina.deploy.facts import Facts, collect_facts
from lamina.deploy.report_images import Evidence, show_confusions, show_losses, show_units
from lamina.drawing.curves import draw_curves
from lamina.drawing.metric_figures import draw_labels, draw_reliability, draw_scatter
from lamina.drawing.style import encode_png
from lamina.errors import LaminaError, plural
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport, Report
from lamina.markup import Markup, chart, join, link, table, wrap
from lamina.nets import summarize
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.text import format_percent
from lamina.training.model import Model
from lamina.training.task import Task

INSPECTED_BYTES = 2_000_000_000  # of pixels that are looked through for findings; more would take long
MOST_NAMED = 5


def build_report_page(run: Run, dataset: Dataset | None = None, model: Model | None = None) -> str:
    """A page of HTML about a run, complete in itself; without data and model, it lacks the images and the units."""
    if dataset is not None and dataset.fingerprint != run.record.data.fingerprint:
        dataset = None
    facts, report, outputs, task = collect_facts(run), run.report, run.outputs, run.task
    own = next((one for one in outputs.values() if report is not None and one.split == report.split), None)
    images = None if dataset is None or own is None else dataset.splits.get(own.split)
    confusions = losses = Markup("")
    if report is not None and own is not None:
        evidence = Evidence.collect(task, own, images)
        confusions, losses = show_confusions(report, evidence), show_losses(evidence)
    sections = {
        "results": ("Results", _show_results(facts, report, task, own)),
        "confusions": ("What is confused with what", confusions),
        "losses": ("Largest losses", losses),
        "training": ("Training", _show_training(run, facts, report)),
        "units": ("What the first layers see", _show_units(model, dataset)),
        "data": ("Data", _show_data(run, dataset, outputs)),
        "model": ("Model", _show_model(run)),
        "reproduce": ("How to reproduce it", _show_reproduction(run, facts)),
    }
    shown = {name: section for name, section in sections.items() if section[1]}
    return document(
        f"{facts.name}: a report by lamina",
        wrap("header", wrap("h1", facts.name), *_show_head(facts, report, dataset)),
        wrap("nav", *(link(title, target) for target, (title, _) in shown.items())),
        wrap(
            "main",
            *(wrap("section", wrap("h2", title), body, name=target) for target, (title, body) in shown.items()),
            kind="smooth" if min(run.record.in_shape[1:]) > 48 else "",
        ),
    )


def _show_head(facts: Facts, report: Report | None, dataset: Dataset | None) -> list[Markup]:
    lines = [wrap("p", line, kind="headline") for line in report.figures()[:1]] if report else []
    lines.append(wrap("p", facts.about, kind="faint"))
    if report is None:
        lines.append(wrap("p", *facts.verdict, kind="warning"))
    if dataset is None:
        reason = "the data that the run was trained on is no longer where it was, or has changed."
        lines.append(wrap("p", f"This page has no images: {reason}", kind="warning"))
    return lines


def _show_results(facts: Facts, report: Report | None, task: Task, outputs: Outputs | None) -> Markup:
    if report is None:
        return Markup("")
    parts = [wrap("p", line, kind="warning") for line in facts.verdict]
    parts += [wrap("p", line) for line in report.figures()[1:]]
    parts.append(table(*report.table()))
    if isinstance(report, LabelReport) and any(one.average_precision is not None for one in report.labels):
        parts.append(chart(encode_png(draw_labels(report)), "average precision of each label"))
    if outputs is not None and isinstance(report, NumberReport):
        parts.append(chart(encode_png(draw_scatter(report, outputs)), "predicted numbers over the true ones"))
    elif outputs is not None:
        parts.append(wrap("h3", "Are its probabilities right?"))
        drawn = encode_png(draw_reliability(task, outputs))
        kind = "chart narrow" if isinstance(report, LabelReport) else "chart"
        parts.append(chart(drawn, "how often answers with a given probability are right", kind))
    if isinstance(report, ClassReport) and report.rejections:
        parts.append(wrap("h3", "Rejecting unsure answers"))
        lines = [
            (f"{100 * one.limit:g} %", format_percent(one.coverage), format_percent(one.accuracy))
            for one in report.rejections
        ]
        parts.append(table(("rejected below", "answers kept", "of these right"), lines, texts=0))
    return join(parts)


def _show_training(run: Run, facts: Facts, report: Report | None) -> Markup:
    rows = run.folder.history.epochs()
    if not rows:
        return wrap("p", "No epoch has been trained.")
    seconds = sum(row.get("train_seconds") or 0.0 for row in rows)
    epochs = plural(run.record.recipe.epochs, "epoch", "epochs")
    parts = [wrap("p", f"{len(rows):,} of {epochs}, {seconds:.1f} seconds.")]
    if run.early_end:
        parts.append(wrap("p", run.early_end))
    if report is not None:
        name = run.record.net_name
        curves = draw_curves({name: [rows]}, report.score, reports={name: [report]})
        parts.append(chart(encode_png(curves), "learning curves, and what each layer did"))
    parts.append(wrap("h3", "Diagnoses"))
    lines = [wrap("li", line) for line in facts.diagnoses]
    parts.append(wrap("ul", *lines) if lines else wrap("p", "Nothing was found to go wrong."))
    return join(parts)


def _show_units(model: Model | None, dataset: Dataset | None) -> Markup:
    if dataset is None:
        return Markup("")
    if model is None:
        return wrap("p", "Left out, as the model could not be loaded.")
    try:
        return show_units(model, dataset.train)
    except LaminaError as error:  # a module of the user's own may have no layer of tensors
        return wrap("p", f"Left out: {error}")


def _show_data(run: Run, dataset: Dataset | None, outputs: Mapping[Split, Outputs]) -> Markup:
    record = run.record
    kind, names = record.task.kind, record.task.target_names
    channels, height, width = record.in_shape
    parts = [wrap("p", f"{record.data.name}: images of {height}×{width}×{channels}, {kind.describe(names)}.")]
    if dataset is None:
        known = [f"{len(one.targets):,} {split}" for split, one in outputs.items()]
        if known:
            parts.append(wrap("p", f"It was evaluated on {' and '.join(known)} images."))
        return join(parts)
    parts.append(wrap("p", f"Splits: {dataset.split_rule}."))
    parts.append(table(("", *dataset.splits), dataset.count_rows()))
    if kind is REGRESSION:
        parts.append(_show_numbers(dataset))
    return join([*parts, wrap("h3", "Findings"), _show_findings(dataset)])


def _show_numbers(dataset: Dataset) -> Markup:
    rows = []
    for split, images in dataset.splits.items():
        for name, *figures in measure_spread(images):
            rows.append((split, name, *(f"{figure:.4g}" for figure in figures)))
    return table(("split", "number", "lowest", "mean", "std", "highest"), rows, texts=2)


def _show_findings(dataset: Dataset) -> Markup:
    if sum(images.pixels.nbytes for images in dataset.splits.values()) > INSPECTED_BYTES:
        return wrap("p", "They were not looked for in so many images; lamina data does that.")
    found = inspect(dataset).findings
    if not found:
        return wrap("p", "Nothing is wrong with it that lamina data looks for.")
    items = []
    for finding in found:
        some = ", ".join(sighting.name for sighting in finding.images[:MOST_NAMED])
        more = f" ({some}{' …' if len(finding.images) > MOST_NAMED else ''})" if some else ""
        items.append(wrap("li", f"{finding.severity}: {finding.message}{more}"))
    return wrap("ul", *items)


def _show_model(run: Run) -> Markup:
    record = run.record
    if record.net is not None:
        heads, rows = summarize(record.net, record.in_shape, record.task.outputs).table()
        return table(heads, rows)
    if record.timm is not None:
        return wrap("p", f"{record.net_name}, a net of timm: {record.timm.name}.")
    return wrap("p", f"A module of its own, which lamina does not store: {record.own_module}.")


def _show_reproduction(run: Run, facts: Facts) -> Markup:
    command = shlex.join(run.record.command)
    advice = (
        "With the same data, versions, kind of processor and number of threads, the weights are the same to the bit; "
        "lamina reproduce RUN trains the first epochs again and compares."
    )
    return join(
        [
            wrap("pre", command) if command else wrap("p", "It was trained from Python."),
            table((), facts.origin.items(), texts=2),
            wrap("p", advice, kind="faint"),
        ]
    )
