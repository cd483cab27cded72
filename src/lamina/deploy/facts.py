"""The facts of a run that its report page and its model card share, as unescaped text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.runs.run import Run
from lamina.text import shorten
from lamina.training.events import Diagnosis

NOT_EVALUATED = (
    "The model has not been evaluated: the data set has no val or test images, or training has not"
    " finished."
)


@dataclass(frozen=True)
class Facts:
    """The facts in a run's files, without its data and weights."""

    name: str
    about: str
    verdict: Sequence[str]  # empty if the model beats the baseline
    diagnoses: Sequence[str]
    origin: dict[str, str]  # what is needed to reproduce the run, by name


def collect_facts(run: Run) -> Facts:
    """Collect the facts of a run; ``RunError`` if a file of the run is damaged."""
    record = run.record
    report = run.report
    rows = run.folder.read_epochs()
    channels, height, width = record.in_shape
    color = "gray" if channels == 1 else "color"
    preparation = ", ".join(
        f"{name}={shorten(repr(value), 80)}"
        for name, value in record.data.preparation.to_json().items()
    )
    done = f"{len(rows):,}"
    of = "epochs"
    trained = done
    if run.epochs is not None:
        of = f"of {run.epochs:,} epochs"
        trained = f"{done} of {run.epochs:,}"
    ended = ""
    if len(rows) != run.epochs:
        reason = f": {run.end}" if run.end else ""
        ended = f" Training ended after {done} {of}{reason}."
    custom = {}
    if record.parts:
        custom["custom functions"] = ", ".join(map(": ".join, record.parts.items()))
    verdict = [NOT_EVALUATED]
    if report is not None:
        verdict = [] if report.is_better else report.verdict()
    return Facts(
        name=run.path.resolve().name,
        about=(
            f"{record.net_name} ({record.parameters:,} parameters) for"
            f" {color} images of {height}×{width} px:"
            f" {record.task.kind.describe(record.task.target_names)}. Trained on {record.data.name}"
            f" with lamina {record.versions.get('lamina', '')} on {record.created[:10]}.{ended}"
        ),
        verdict=verdict,
        diagnoses=[
            f"{diagnosis.kind} (epoch {diagnosis.epoch}): {diagnosis.explain()}"
            for row in rows
            for diagnosis in (Diagnosis(**values) for values in row.get("diagnoses", ()))
        ],
        origin={
            "recipe": repr(record.recipe),
            **custom,
            "epochs trained": trained,
            "seed": str(record.recipe.seed),
            "data": record.data.name,
            "data fingerprint": record.data.fingerprint,
            "preparation": preparation or "defaults",
            "device": str(record.device),
            "precision": str(record.precision),
            "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
            "processor": record.machine.processor,
            "threads": f"{record.machine.threads} of {record.machine.cores} cores",
            "system": record.machine.platform,
            "created": record.created,
        },
    )
