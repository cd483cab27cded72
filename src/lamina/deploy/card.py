"""A model card in Markdown, with Hugging Face's metadata: what a run's model is, how well it answers, how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.deploy.facts import Facts, collect_facts
from lamina.evaluation.reports import ClassReport, LabelReport, Report
from lamina.runs.run import Run
from lamina.targets import MULTI_LABEL, REGRESSION
from lamina.text import escape
from lamina.training.pretrained import PRETRAINED

# What Hugging Face calls the data sets that have a name in lamina; others have no page there.
DATA_SETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
}
METRICS = ("accuracy", "f1", "mae")  # those that have a page at https://hf.co/metrics
NAMED_CLASSES = 50


def build_card(run: Run) -> str:
    """A model card in Markdown, with the metadata of https://huggingface.co/docs/hub/model-cards as JSON values."""
    facts, report = collect_facts(run), run.report
    metadata = (f"{key}: {to_yaml(value)}" for key, value in _collect_metadata(run, report, facts.name).items())
    sections = {
        "How good it is": _describe_results(run, report, facts),
        "Limits": _describe_limits(run, report, facts),
        "How to use it": _describe_use(run),
        "How it was trained": [f"- {name}: {_quote(value)}" for name, value in facts.origin.items()],
    }
    lines = ["---", *metadata, "---", "", f"# {_quote(facts.name)}", "", *_describe_model(run, facts)]
    for title, section in sections.items():
        lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def to_yaml(value: Any) -> str:
    """A value as JSON that YAML 1.1 reads alike."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{to_yaml(key)}: {to_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if isinstance(value, float):
        # YAML takes an exponent for a number's only behind a point.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, str):
        shown = json.dumps(escape(value), ensure_ascii=False)
        return re.sub("[\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", shown)
    return json.dumps(value)


def _collect_metadata(run: Run, report: Report | None, name: str) -> dict[str, Any]:
    record = run.record
    task = "other" if record.task.kind is REGRESSION else "image-classification"
    known = DATA_SETS.get(record.data.source)
    found: dict[str, Any] = {
        "license": "unknown",
        "library_name": "lamina",
        "pipeline_tag": task,
        "tags": ["lamina", record.task.kind.name],
    }
    if known is not None:
        found["datasets"] = [known]
    if record.timm is not None and record.timm.weights == PRETRAINED:
        found["base_model"] = f"timm/{record.timm.name}"  # where timm's authors publish them
    if report is None:
        return found
    metrics = [
        {"type": kind, "name": name, "value": float(f"{value:.4g}")} for kind, name, value in _collect_metrics(report)
    ]
    found["metrics"] = [metric["type"] for metric in metrics if metric["type"] in METRICS]
    data = {"name": record.data.name, "type": known or "other", "split": report.split}
    results = [{"task": {"type": task}, "dataset": data, "metrics": metrics}]
    found["model-index"] = [{"name": name, "results": results}]
    return found


def _collect_metrics(report: Report) -> list[tuple[str, str, float]]:
    match report:
        case ClassReport():
            return [
                ("accuracy", "accuracy", report.accuracy),
                ("balanced_accuracy", "balanced accuracy", report.balanced_accuracy),
                ("expected_calibration_error", "calibration error", report.calibration_error),
            ]
        case LabelReport():
            return [
                ("mean_average_precision", "mean average precision", report.mean_average_precision),
                ("f1", "micro F1", report.micro_f1),
            ]
        case _:
            return [("mae", "mean absolute error", report.score.value)]


def _describe_model(run: Run, facts: Facts) -> list[str]:
    kind, names = run.record.task.kind, run.record.task.target_names
    quoted = [_quote(name) for name in names[:NAMED_CLASSES]]
    more = f" and {len(names) - NAMED_CLASSES:,} more" if len(names) > NAMED_CLASSES else ""
    noun = {REGRESSION: "Numbers", MULTI_LABEL: "Labels"}.get(kind, "Question" if len(names) == 1 else "Classes")
    return [_quote(facts.about), "", f"{noun}: {', '.join(quoted)}{more}."]


def _describe_results(run: Run, report: Report | None, facts: Facts) -> list[str]:
    if report is None:
        return list(facts.verdict)
    lines = [f"- {_quote(line)}" for line in (*facts.verdict, *report.figures())]
    heads, rows = report.table()
    table = [heads, ["---", *("---:" for _ in heads[1:])], *(map(_quote, row) for row in rows)]
    where = f"Measured on {report.images:,} images of {_quote(run.record.data.name)} that it was not trained on"
    where += ", by which it may have been chosen (val)." if report.split == "val" else f" ({report.split})."
    return [where, "", *lines, "", *(f"| {' | '.join(row)} |" for row in table)]


def _describe_limits(run: Run, report: Report | None, facts: Facts) -> list[str]:
    limits = []
    if run.record.task.kind is REGRESSION:
        limits.append("It gives numbers for any image, also for one unlike those that it was trained on.")
    else:
        limits.append("It has no other answers than these, also for images unlike those that it was trained on.")
    if isinstance(report, ClassReport):
        weak = sorted((one.recall, one.name, one.support) for one in report.classes if one.recall is not None)
        recall, name, support = weak[0]
        if recall < 1:
            limits.append(f"Its recall is lowest for {_quote(name)}: {100 * recall:.1f} % of {support:,} images.")
        if absent := ", ".join(_quote(one.name) for one in report.classes if not one.support):
            limits.append(f"It was measured without images of {absent}.")
    if run.record.task.kind is not REGRESSION:
        calibration = run.calibration
        limits.append(
            "Its probabilities are not calibrated; do not read them as how often it is right."
            if calibration is None
            else f"Its probabilities are calibrated on {calibration.images:,} images of {calibration.split}, for "
            "images like those."
        )
    limits += [f"While it was trained: {_quote(diagnosis)}" for diagnosis in facts.diagnoses]
    limits.append("Whom it may be used on, and for what, was not examined. Its owner should say so here.")
    return [f"- {limit}" for limit in limits]


def _describe_use(run: Run) -> list[str]:
    load = 'load_run("PATH")  # this folder'
    if run.record.own_module is not None:
        load = 'load_run("PATH", module=module)  # this folder, and its own module, made anew'
    return [
        *("```python", "from lamina import load_run", "", f"run = {load}"),
        *('print(run.predict("photos/*.jpg"))', "```"),
    ]


def _quote(text: str) -> str:
    r"""Text that Markdown shows as it is, without links.

    >>> print(_quote("<b> *x* | www.example.com http://example.com"))
    \<b\> \*x\* \| www\.example.com http\://example.com
    """
    return re.sub(r"[\\`*_\[\]<>#|~&$@]|(?<=www)\.|:(?=//)", r"\\\g<0>", escape(text), flags=re.IGNORECASE)
