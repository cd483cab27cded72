"""Short descriptions of a run: table row, ``repr`` and notebook card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from lamina.errors import LaminaError, escape
from lamina.evaluation.reports import Report
from lamina.kernels.library import find_kernels
from lamina.markup import card, note, table, wrap
from lamina.runs.record import RunRecord
from lamina.runs.run_folder import RunFolder
from lamina.training.device import Choice
from lamina.training.precision import Precision
from lamina.training.recipe import Recipe

Rows: TypeAlias = Sequence[Mapping[str, Any]]


def summarize_run(
    folder: RunFolder, record: RunRecord, report: Report | None, rows: Rows | None
) -> dict[str, str]:
    """A run's table row, by column; ``rows`` are its epochs, ``None`` if unreadable."""
    # A finished run has no score if there were no images to evaluate on.
    is_finished = rows is not None and (
        len(rows) == record.epochs or folder.history.early_end() is not None
    )
    score = "no score" if is_finished else "not finished"
    return {
        "run": str(folder.path),
        "net": record.net_name,
        "data": record.data.name,
        "score": (
            score
            if report is None
            else f"{report.split} {report.score}" + ", not finished" * (not is_finished)
        ),
        "epochs": f"{'?' if rows is None else len(rows)}/{record.epochs or '?'}",
        "parameters": f"{record.parameters:,}",
        "train seconds": f"{sum(row.get('train_seconds') or 0.0 for row in rows or ()):.1f}",
    }


def describe_run(folder: RunFolder, record: RunRecord) -> str:
    run, net, data, score, epochs, *_ = summarize_run(folder, record, *_read(folder)).values()
    return escape(f"Run({run!r}: {net} on {data}, epochs {epochs}, {score})")


def show_run(folder: RunFolder, record: RunRecord) -> str:
    """The card of a run in a notebook: its row and the metrics of its report."""
    report, epochs = _read(folder)
    rows = [*summarize_run(folder, record, report, epochs).items(), ("recipe", repr(record.recipe))]
    lines = [] if report is None else report.summary_lines()
    more = note("more: run.report, run.history, run.plot(), run.predict(paths)")
    metrics = (wrap("p", line) for line in lines)
    return card(describe_run(folder, record), table((), rows[1:], texts=2), *metrics, more)


def describe_recipe(recipe: Recipe, *, is_open: bool = False) -> str:
    """The main settings of a recipe and all changed ones; no epochs if time decides."""
    always = {
        name: getattr(recipe, name) for name in ("epochs", "batch_size", "optimizer", "lr", "seed")
    }
    shown = always | recipe.changes()
    return ", ".join(
        f"{name} {value}" for name, value in shown.items() if name != "epochs" or not is_open
    )


def describe_start(record: RunRecord, *, has_own_statistics: bool) -> list[str]:
    lines = [f"net: {escape(record.net_name)}, {record.parameters:,} parameters"]
    if has_own_statistics:
        mean, std = (
            ", ".join(f"{value:.1f}" for value in values) for values in (record.mean, record.std)
        )
        lines.append(f"normalization: as pretrained, mean {mean}, standard deviation {std}")
    lines += [escape(f"start: {record.started_from}")] if record.started_from else []
    return [*lines, describe_arithmetic(record.device, record.precision)]


def describe_arithmetic(device: Choice, precision: Precision) -> str:
    kernels = f"; kernels: {find_kernels()}" if device.value == "cpu" else ""
    return f"device: {device}; precision: {precision}{kernels}"


def _read(folder: RunFolder) -> tuple[Report | None, Rows | None]:
    report, rows = None, None
    with suppress(LaminaError):
        report = folder.read_report()
        rows = folder.history.epochs()
    return report, rows
