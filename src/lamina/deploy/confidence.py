"""Which predictions a confidence threshold rejects. No torch."""

from __future__ import annotations

from lamina.errors import DataError
from lamina.evaluation.predictions import Prediction
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, Decision

NOT_CALIBRATED = "warning: the probabilities are not calibrated"
FLAG = "--confidence-threshold"


def check_confidence_threshold(task: Decision, threshold: float) -> None:
    """Raise ``DataError`` if the threshold is invalid or unsuitable for the predictions."""
    if not 0 < threshold < 1:
        raise DataError(f"{FLAG} is {threshold:g}; it must be between 0 and 1. Use {FLAG} 0.9.")
    if task.kind is MULTI_LABEL:
        raise DataError(
            f"The model is multi-label, but {FLAG} needs exactly one class per image. Leave out"
            f" {FLAG}."
        )
    if task.kind is REGRESSION:
        raise DataError(
            f"The model predicts numbers, but {FLAG} needs probabilities. Leave out {FLAG}."
        )
    if task.kind is BINARY and task.cutoffs[0] < 0.5:
        raise DataError(
            f"The model predicts yes above {100 * task.cutoffs[0]:.2f} %, but {FLAG} would reject"
            f" these predictions. Leave out {FLAG}, or use --aim precision=0.9."
        )


def is_rejected(prediction: Prediction, threshold: float) -> bool:
    """Whether the probability of the predicted class, or of yes or no, is below the threshold."""
    predicted = prediction.predicted
    return isinstance(predicted, str) and prediction.values[predicted] < threshold
