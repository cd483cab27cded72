"""The model card of a run: Markdown with Hugging Face's metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.deploy.facts import Facts, collect_facts
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport, Report
from lamina.evaluation.words import list_lines
from lamina.runs.run import Run
from lamina.targets import MULTI_LABEL, REGRESSION
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
NAMED_CLASSES = 50


def build_card(run: Run) -> str:
    """The model card as Markdown; metadata: https://huggingface.co/docs/hub/model-cards."""
    facts = collect_facts(run)
    report = run.report
    metadata = _collect_metadata(run, report, facts.name)
    lines = ["---", *(f"{key}: {to_yaml(value)}" for key, value in metadata.items()), "---", ""]
    lines += [f"# {_quote(facts.name)}", "", *_describe_model(run, facts)]
    sections = {
        "Results": _describe_results(run, report, facts),
        "Limitations": _describe_limits(run, report, facts),
        "Usage": _describe_use(run),
        "Training": [f"- {name}: {_quote(value)}" for name, value in facts.origin.items()],
    }
    for heading, section in sections.items():
        lines += ["", f"## {heading}", "", *section]
    return "\n".join(lines) + "\n"


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
    metrics = []
    chosen = report.chosen_score
    if chosen is not None:
        metrics.append((chosen.name, chosen.title, chosen.value))
    match report:
        case ClassReport():
            metrics += [
                ("accuracy", "accuracy", report.accuracy),
                ("balanced_accuracy", "balanced accuracy", report.balanced_accuracy),
                ("expected_calibration_error", "calibration error", report.calibration_error),
            ]
        case LabelReport():
            metrics += [
                ("mean_average_precision", "mean average precision", report.mean_average_precision),
                ("f1", "micro F1", report.micro_f1),
            ]
        case NumberReport():
            metrics.append(("mae", "mean absolute error", report.mean_absolute_error))
    return list(dict.fromkeys(metrics))


def _describe_model(run: Run, facts: Facts) -> list[str]:
    kind = run.record.task.kind
    names = run.record.task.target_names
    quoted = ", ".join(_quote(name) for name in names[:NAMED_CLASSES])
    more = f" and {len(names) - NAMED_CLASSES:,} more" if len(names) > NAMED_CLASSES else ""
    classes = "Target" if len(names) == 1 else "Classes"
    noun = {REGRESSION: "Numbers", MULTI_LABEL: "Labels"}.get(kind, classes)
    return [_quote(facts.about), "", f"{noun}: {quoted}{more}."]


def _describe_results(run: Run, report: Report | None, facts: Facts) -> list[str]:
    if report is None:
        return list(facts.verdict)
    lines = [f"- {_quote(line)}" for line in (*facts.verdict, *list_lines(report))]
    heads, rows = report.table()
    table = [heads, ["---", *("---:" for _ in heads[1:])], *(map(_quote, row) for row in rows)]
    use = "not used for training."
    if report.split == "val":
        use = "not used for training, but may have been used to choose the model."
    where = (
        f"Measured on the {report.images:,} {report.split} images of"
        f" {_quote(run.record.data.name)}, which were {use}"
    )
    return [where, "", *lines, "", *(f"| {' | '.join(row)} |" for row in table)]


def _describe_limits(run: Run, report: Report | None, facts: Facts) -> list[str]:
    kind = run.record.task.kind
    noun = {REGRESSION: "numbers", MULTI_LABEL: "these labels"}.get(kind, "these classes")
    limits = [f"The model predicts {noun} for any image, even one unlike the training images."]
    if isinstance(report, ClassReport):
        recalls = [
            (scores.recall, scores.name, scores.support)
            for scores in report.classes
            if scores.recall is not None
        ]
        recall, name, support = min(recalls)
        if recall < 1:
            limits.append(
                f"Lowest recall: {_quote(name)}, {100 * recall:.1f} % of {support:,} images."
            )
        absent = [_quote(scores.name) for scores in report.classes if not scores.support]
        if absent:
            limits.append(f"The evaluation had no images of {', '.join(absent)}.")
    if kind is not REGRESSION:
        limits += _describe_calibration(run.calibration)
    limits += [f"Diagnosis during training: {_quote(diagnosis)}" for diagnosis in facts.diagnoses]
    limits.append(
        "Intended use, risks and biases have not been assessed. The owner of the model should add"
        " them here."
    )
    return [f"- {limit}" for limit in limits]


def _describe_calibration(calibration: Calibration | None) -> list[str]:
    lines = [
        "The probabilities are not calibrated: a probability of 80 % does not mean that 80 % of"
        " such predictions are correct."
    ]
    if calibration is None:
        return lines
    if calibration.temperatures:
        lines = [
            f"The probabilities are calibrated on {calibration.source}; the calibration holds for"
            " similar images only."
        ]
    if calibration.thresholds:
        chosen = _quote("; ".join(map(str, calibration.thresholds)))
        lines.append(f"Thresholds chosen on {calibration.source} for {calibration.aim}: {chosen}.")
    return lines


def _describe_use(run: Run) -> list[str]:
    load = 'load_run("PATH")  # this folder'
    if run.record.own_module is not None:
        load = (
            'load_run("PATH", module=module)  # this folder, and a new instance of its custom'
            " module"
        )
    lines = ["from lamina import load_run", "", f"run = {load}"]
    return ["```python", *lines, 'print(run.predict("photos/*.jpg"))', "```"]


def _quote(text: str) -> str:
    """Escape text for Markdown, so that it contains no formatting and no links."""
    return re.sub(
        r"[\\`*_\[\]<>#|~&$@]|(?<=www)\.|:(?=//)", r"\\\g<0>", escape(text), flags=re.IGNORECASE
    )
