"""The model card of a run: Markdown with Hugging Face's metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.deploy.facts import collect_facts
from lamina.deploy.templates import open_templates
from lamina.evaluation.report import Report
from lamina.markup import Markup
from lamina.runs.run import Run
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Score
from lamina.text import escape
from lamina.training.pretrained import PRETRAINED

# Hugging Face's names of lamina's named data sets.
DATA_SETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
}
METRICS = ("accuracy", "f1", "mae")  # these have a page at https://hf.co/metrics
HUB_NAMES = {"micro_f1": "f1", "mean_absolute_error": "mae"}
NAMED_CLASSES = 50


def build_card(run: Run) -> str:
    """The model card as Markdown; metadata: https://huggingface.co/docs/hub/model-cards."""
    facts = collect_facts(run)
    report = run.report
    kind = run.record.task.kind
    names = run.record.task.target_names
    more = f" and {len(names) - NAMED_CLASSES:,} more" if len(names) > NAMED_CLASSES else ""
    noun = "Target" if len(names) == 1 else "Classes"
    metadata = _collect_metadata(run, report, facts.name)
    values: dict[str, Any] = {
        "metadata": [_keep(f"{key}: {to_yaml(value)}") for key, value in metadata.items()],
        "facts": facts,
        "record": run.record,
        "report": report,
        "noun": {REGRESSION: "Numbers", MULTI_LABEL: "Labels"}.get(kind, noun),
        "names": f"{', '.join(names[:NAMED_CLASSES])}{more}.",
        "predicted": {REGRESSION: "numbers", MULTI_LABEL: "these labels"}.get(
            kind, "these classes"
        ),
        "has_probabilities": kind is not REGRESSION,
        "calibration": run.calibration,
    }
    if report is not None:
        heads, rows = report.table()
        rule = [_keep("---"), *(_keep("---:") for _ in heads[1:])]
        values["images"] = f"{report.images:,}"
        values["lines"] = [report.headline(), *report.lines()]
        values["rows"] = [_write_row(row) for row in (heads, rule, *rows)]
    if report is not None and kind in (SINGLE_LABEL, BINARY):
        recall, name, images = min(
            (recall, row.name, row.images)
            for row in report.rows
            if (recall := row.metrics["recall"]) is not None
        )
        if recall < 1:
            values["lowest"] = f"{name}, {100 * recall:.1f} % of {images:,} images."
        values["absent"] = ", ".join(row.name for row in report.rows if not row.images)
    return open_templates(quote).get_template("card.md").render(values)


def to_yaml(value: Any) -> str:
    """A value as JSON that YAML 1.1 parses to the same value."""
    if isinstance(value, Mapping):
        pairs = [f"{to_yaml(key)}: {to_yaml(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if isinstance(value, float):
        # YAML needs a decimal point before an exponent.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, str):
        shown = json.dumps(escape(value), ensure_ascii=False)
        return re.sub("[\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", shown)
    return json.dumps(value)


def _collect_metadata(run: Run, report: Report | None, name: str) -> dict[str, Any]:
    record = run.record
    task = "other" if record.task.kind is REGRESSION else "image-classification"
    known = DATA_SETS.get(record.data.source)
    metadata: dict[str, Any] = {
        "license": "unknown",
        "library_name": "lamina",
        "pipeline_tag": task,
        "tags": ["lamina", record.task.kind.name],
    }
    if known is not None:
        metadata["datasets"] = [known]
    if record.timm is not None and record.timm.weights == PRETRAINED:
        metadata["base_model"] = f"timm/{record.timm.name}"  # where timm publishes its weights
    if report is None:
        return metadata
    metrics = [
        {"type": kind, "name": title, "value": float(f"{value:.4g}")}
        for kind, title, value in _collect_metrics(report)
    ]
    metadata["metrics"] = [metric["type"] for metric in metrics if metric["type"] in METRICS]
    data = {"name": record.data.name, "type": known or "other", "split": report.split}
    results = [{"task": {"type": task}, "dataset": data, "metrics": metrics}]
    metadata["model-index"] = [{"name": name, "results": results}]
    return metadata


def _collect_metrics(report: Report) -> list[tuple[str, str, float]]:
    """Hugging Face's name, the title and the value of each metric."""
    values = {report.score.name: report.score.value, **report.metrics}
    metrics = []
    for name, value in values.items():
        if value is not None:
            metrics.append((HUB_NAMES.get(name, name), Score(name, value).title, value))
    if report.calibration_error is not None:
        error = report.calibration_error
        metrics.append(("expected_calibration_error", "calibration error", error))
    return metrics


def _write_row(cells: Sequence[str]) -> Markup:
    """A row of a table in Markdown."""
    return _keep(f"| {' | '.join(map(quote, cells))} |")


def _keep(text: str) -> Markup:
    """Text that contains Markdown or YAML on purpose."""
    return Markup(text)


def quote(text: str) -> str:
    """Escape text for Markdown, so that it contains no formatting and no links."""
    if isinstance(text, Markup):
        return text
    return re.sub(
        r"[\\`*_\[\]<>#|~&$@]|(?<=www)\.|:(?=//)", r"\\\g<0>", escape(text), flags=re.IGNORECASE
    )
