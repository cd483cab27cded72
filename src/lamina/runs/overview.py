"""Short descriptions of a run: table row, ``repr`` and notebook card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from lamina.errors import LaminaError, escape
from lamina.evaluation.reports import Report
from lamina.evaluation.words import list_lines
from lamina.kernels.library import find_kernels
from lamina.markup import Markup, card, line_chart, note, table, wrap
from lamina.runs.record import RunRecord
from lamina.targets import Score
from lamina.training.device import Choice
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.runs.run import Run

Rows: TypeAlias = Sequence[Mapping[str, Any]]


def summarize_run(run: Run, report: Report | None, epochs: Rows | None) -> dict[str, str]:
    """A run's table row, by column; ``epochs`` is ``None`` if its history cannot be read."""
    record = run.record
    is_finished = epochs is not None and run.is_finished
    score = "not finished"
    if report is not None:
        score = f"{report.split} {report.score}" + ", not finished" * (not is_finished)
    elif is_finished:  # there were no images to evaluate on
        score = "no score"
    done = "?" if epochs is None else len(epochs)
    seconds = sum(row.get("train_seconds") or 0.0 for row in epochs or ())
    return {
        "run": str(run.path),
        "net": record.net_name,
        "data": record.data.name,
        "score": score,
        "epochs": f"{done}/{count_planned(record, epochs or ()) or '?'}",
        "parameters": f"{record.parameters:,}",
        "train seconds": f"{seconds:.1f}",
    }


def count_planned(record: RunRecord, epochs: Rows) -> int | None:
    """The number of epochs of a run, as planned last; ``None`` while a time limit decides."""
    planned: int | None = record.recipe.epochs
    if epochs:
        planned = epochs[-1].get("epochs", planned)
    return planned


def describe_run(run: Run) -> str:
    row = summarize_run(run, *_read(run))
    place = f"{row['run']!r}: {row['net']} on {row['data']}"
    return escape(f"Run({place}, epochs {row['epochs']}, {row['score']})")


def show_run(run: Run) -> str:
    """The card of a run in a notebook: its row and the metrics of its report."""
    report, epochs = _read(run)
    row = summarize_run(run, report, epochs) | {"recipe": repr(run.record.recipe)}
    del row["run"]
    lines = [] if report is None else list_lines(report)
    more = note("more: run.report, run.history, run.plot(), run.predict(paths)")
    metrics = (wrap("p", line) for line in lines)
    charts = draw_course(epochs or (), None if report is None else report.score)
    return card(describe_run(run), table((), list(row.items()), texts=2), *charts, *metrics, more)


def draw_course(epochs: Rows, score: Score | None) -> list[Markup]:
    """Small charts of score and loss by epoch; none for a single epoch."""
    shown = [Score("loss", 0.0)]
    if score is not None and score.name != "loss":
        shown.insert(0, score)
    charts = []
    for each in shown:
        lines = {}
        for split in ("train", "val"):
            column = f"{split}_{each.name}"
            line = {row["epoch"]: row[column] for row in epochs if row.get(column) is not None}
            if len(line) > 1:
                lines[split] = line
        if lines:
            values = [value for line in lines.values() for value in line.values()]
            ends = (each.format(min(values)), each.format(max(values)))
            charts.append(line_chart(each.title, lines, ends, "epoch"))
    return [wrap("div", *charts, kind="charts")] if charts else []


def describe_recipe(recipe: Recipe, *, is_open: bool = False) -> str:
    """The main and all changed settings of a recipe; no epochs if a time limit decides."""
    names = ["epochs", "batch_size", "optimizer", "lr", "seed", *recipe.changes()]
    values = {name: getattr(recipe, name) for name in names}
    if is_open:
        del values["epochs"]
    return ", ".join(f"{name} {value}" for name, value in values.items())


def describe_start(record: RunRecord, *, has_own_statistics: bool) -> list[str]:
    lines = [f"net: {escape(record.net_name)}, {record.parameters:,} parameters"]
    if has_own_statistics:
        mean = ", ".join(f"{value:.1f}" for value in record.mean)
        std = ", ".join(f"{value:.1f}" for value in record.std)
        lines.append(f"normalization: as pretrained, mean {mean}, standard deviation {std}")
    if record.started_from is not None:
        lines.append(escape(f"start: {record.started_from}"))
    return [*lines, describe_arithmetic(record.device, record.precision)]


def describe_arithmetic(device: Choice, precision: Choice) -> str:
    kernels = f"; kernels: {find_kernels()}" if device.value == "cpu" else ""
    return f"device: {device}; precision: {precision}{kernels}"


def _read(run: Run) -> tuple[Report | None, Rows | None]:
    report = None
    with suppress(LaminaError):
        report = run.report
        return report, run.folder.history.epochs()
    return report, None
