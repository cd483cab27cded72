"""``ConfidenceRule``: which predictions are rejected; prediction sets or intervals. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.errors import DataError
from lamina.evaluation.predictions import Prediction, favors_yes
from lamina.targets import MULTI_LABEL, REGRESSION, Decision

NOT_CALIBRATED = "warning: the probabilities are not calibrated"


@dataclass(frozen=True)
class ConfidenceRule:
    """The confidence threshold, and the prediction sets' threshold or the intervals' half-widths.

    ``favored`` is never rejected: yes if the decision threshold is below 0.5, else empty.
    """

    limit: float | None = None
    threshold: float | None = None
    half_widths: tuple[float, ...] = ()
    favored: str = ""
    # 95 % interval of the fraction of new images that sets or intervals cover
    covered: tuple[float, float] | None = None

    def rejects(self, prediction: Prediction) -> bool:
        predicted = prediction.predicted
        if self.limit is None or not isinstance(predicted, str) or predicted == self.favored:
            return False
        return prediction.values.get(predicted, 1.0) < self.limit

    def choose(self, prediction: Prediction) -> list[str]:
        """The classes of the prediction set, most likely first, including the predicted class."""
        ranked = sorted(prediction.values.items(), key=lambda pair: -pair[1])
        threshold = 0.0 if self.threshold is None else self.threshold
        return [
            name for name, value in ranked if value >= threshold or name == prediction.predicted
        ]


def make_rule(task: Decision, limit: float | None, coverage: float | None) -> ConfidenceRule:
    """The rule for a confidence threshold; ``DataError`` if an option is invalid or unsuitable."""
    for flag, value in (("--confidence-threshold", limit), ("--coverage", coverage)):
        if value is not None and not 0 < value < 1:
            raise DataError(f"{flag} is {value:g}; it must be between 0 and 1. Use {flag} 0.9.")
        if value is not None and task.kind is MULTI_LABEL:
            raise DataError(
                f"The model is multi-label, but {flag} needs exactly one class per image. Leave out"
                f" {flag}."
            )
    if limit is not None and task.kind is REGRESSION:
        raise DataError(
            "The model predicts numbers, but --confidence-threshold needs probabilities. Use"
            " --coverage 0.9."
        )
    favored = "yes" if favors_yes(task) else ""
    return ConfidenceRule(limit, favored=favored)
