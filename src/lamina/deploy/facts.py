"""The facts of a run that its report page and its model card share, as unescaped text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.evaluation.words import find_verdict
from lamina.runs.run import Run
from lamina.text import shorten

NOT_EVALUATED = (
    "The model has not been evaluated: the data set has no val or test images, or training has not"
    " finished."
)


@dataclass(frozen=True)
class Facts:
    """What a run's files say without its data and weights."""

    name: str
    about: str
    verdict: Sequence[str]  # empty if the model beats the baseline
    diagnoses: Sequence[str]
    origin: dict[str, str]  # what is needed to reproduce the run, by name


def collect_facts(run: Run) -> Facts:
    """Collect the facts of a run; ``RunError`` if a file of the run is damaged."""
    record, report, history = run.record, run.report, run.folder.history
    channels, height, width = record.in_shape
    given = record.data.preparation.to_json().items()
    preparation = ", ".join(f"{name}={shorten(repr(value), 80)}" for name, value in given)
    custom = ", ".join(map(": ".join, record.parts.items()))
    done, planned = len(history.epochs()), record.epochs
    of = "epochs" if planned is None else f"of {planned:,} epochs"
    ended = "" if done == planned else f" Training ended after {done:,} {of}"
    if ended:
        ended += f": {run.early_end}." if run.early_end else "."
    return Facts(
        name=run.path.resolve().name,
        about=(
            f"{record.net_name} ({record.parameters:,} parameters) for"
            f" {'gray' if channels == 1 else 'color'} images of {height}×{width} px:"
            f" {record.task.kind.describe(record.task.target_names)}. Trained on {record.data.name}"
            f" with lamina {record.versions.get('lamina', '')} on {record.created[:10]}.{ended}"
        ),
        verdict=[NOT_EVALUATED] if report is None else find_verdict(report),
        diagnoses=[
            f"{one['kind']} (epoch {one['epoch']}): {one['finding']} {one['advice']}"
            for one in history.diagnoses()
        ],
        origin={
            "recipe": repr(record.recipe),
            **({"custom functions": custom} if custom else {}),
            "epochs trained": f"{done:,}" if planned is None else f"{done:,} of {planned:,}",
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
