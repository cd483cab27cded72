"""The facts of a run that both its report page and its model card give, as plain text, which each makes safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.evaluation.advice import find_verdict
from lamina.runs.run import Run

NOT_EVALUATED = "It has not been evaluated: its data had no val or test images, or the training is not finished."


@dataclass(frozen=True)
class Facts:
    """What is known of a run without its data and its weights."""

    name: str
    about: str
    verdict: Sequence[str]  # what is wrong with it as a whole, if anything
    diagnoses: Sequence[str]
    origin: dict[str, str]  # what is needed to train it again, by name


def collect_facts(run: Run) -> Facts:
    """The facts of a run. Raises ``RunError`` where a file of the run is damaged."""
    record, report, history = run.record, run.report, run.folder.history
    channels, height, width = record.in_shape
    preparation = ", ".join(f"{name}={value!r}" for name, value in record.data.preparation.to_json().items())
    own = ", ".join(map(": ".join, record.parts.items()))
    done, planned = len(history.epochs()), record.recipe.epochs
    ended = "" if done == planned else f" Its training ended after {done:,} of {planned:,} epochs"
    if ended:
        ended += f": {run.early_end}." if run.early_end else "."
    return Facts(
        name=run.path.resolve().name,
        about=(
            f"{record.net_name}, {record.parameters:,} parameters, for {'grey' if channels == 1 else 'colour'} images "
            f"of {height}×{width} px: {record.task.kind.describe(record.task.target_names)}. Trained on "
            f"{record.data.name} by lamina {record.versions.get('lamina', '')}, {record.created[:10]}.{ended}"
        ),
        verdict=[NOT_EVALUATED] if report is None else find_verdict(report),
        diagnoses=[
            f"{one['kind']} (epoch {one['epoch']}): {one['finding']} {one['advice']}" for one in history.diagnoses()
        ],
        origin={
            "recipe": repr(record.recipe),
            **({"own functions": own} if own else {}),
            "epochs trained": f"{done:,} of {planned:,}",
            "seed": str(record.recipe.seed),
            "data": record.data.name,
            "fingerprint of the data": record.data.fingerprint,
            "preparation": preparation or "the defaults",
            "device": str(record.device),
            "precision": str(record.precision),
            "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
            "processor": record.machine.processor,
            "threads": f"{record.machine.threads} of {record.machine.cores} cores",
            "system": record.machine.platform,
            "created": record.created,
        },
    )
