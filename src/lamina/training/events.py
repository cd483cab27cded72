"""What happens in a training: frozen events, the same for files, programs and people."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lamina.targets import Score

CauseKind = Literal[
    "inputs-out-of-scale",
    "learning-rate-too-high",
    "exploding-gradients",
    "vanishing-gradients",
    "dying-relu",
    "saturation",
    "learning-rate-too-low",
]
DiagnosisKind = (
    CauseKind
    | Literal["initial-loss-too-high", "labels-look-shuffled", "one-class-predicted", "oscillation", "overfitting"]
)


@dataclass(frozen=True)
class Event:
    """Something that happens in a training: one of the frozen dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values: its name in ``event``, then its fields; NaN and infinity become ``None``.

        >>> Step(epoch=1, step=10, steps=79, loss=2.25).to_json()
        {'event': 'step', 'epoch': 1, 'step': 10, 'steps': 79, 'loss': 2.25}
        """
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return {"event": name, **_plain(self)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Step(Event):
    """A step inside an epoch; the last one of an epoch gives an :class:`Epoch` instead.

    Attributes:
        epoch: from 1.
        step: steps done in this epoch, of ``steps``.
        loss: of the step's batch.
    """

    epoch: int
    step: int
    steps: int
    loss: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}  step {self.step}/{self.steps}  train loss {self.loss:.4f}"


@dataclass(frozen=True)
class LayerFigures:
    """What the layers of a net did in an epoch, to four digits: for each of ``names`` a value, or ``None``."""

    names: Sequence[str]  # of the layers, such as ``2 Linear``, in the order of the net
    gradient_norms: Sequence[float | None]  # of the weights' gradient in the epoch's last step
    weight_norms: Sequence[float | None]  # before it
    update_norms: Sequence[float | None]  # of their change by it
    input_means: Sequence[float | None]  # for some fixed images, after the epoch
    input_standard_deviations: Sequence[float | None]  # standard deviations
    inactive_fractions: Sequence[float | None]  # of a ReLU that is 0 for all of these, of other outputs at an end


@dataclass(frozen=True)
class Diagnosis(Event):
    """Something that goes wrong in a training.

    Attributes:
        kind: such as ``dying-relu``.
        epoch: in which it was found, from 1.
        layer: which, in words, if it is about one.
        evidence: the values that it is based on, by name.
        finding: what was seen, in a sentence.
        advice: the likely cause, and what to try.
    """

    kind: DiagnosisKind
    epoch: int
    layer: str | None
    evidence: Mapping[str, float]
    finding: str
    advice: str

    def __str__(self) -> str:
        return f"diagnosis: {self.kind}: {self.finding} {self.advice}"


@dataclass(frozen=True)
class Epoch(Event):
    """One pass over the training images.

    Attributes:
        epoch: from 1 to ``epochs``.
        train_loss: mean over the epoch's batches as they were trained on, with the class weights of the recipe.
        train_accuracy: fraction of correct predictions in them; ``None`` for regression.
        train_seconds: time spent in this epoch's training steps alone.
        images_per_second: training images over ``train_seconds``.
        lr: learning rate of the last step.
        layers: what its layers did; ``None`` where that was not looked at.
        diagnoses: what was found to go wrong at its end.
        score: the main score on ``val``, where a run evaluated it after this epoch.
        metrics: these and other metrics by name, such as ``val_accuracy`` and ``val_loss``.
        weights: digest of the model's weights, where a run computed it.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float | None
    train_seconds: float
    images_per_second: float
    lr: float
    layers: LayerFigures | None = field(default=None, repr=False)
    diagnoses: tuple[Diagnosis, ...] = ()
    score: Score | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    weights: str = ""

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        del values["score"]
        metrics = values.pop("metrics")
        last = {name: found for name in ("weights", "layers", "diagnoses") if (found := values.pop(name))}
        return {**values, **metrics, **last}

    def __str__(self) -> str:
        words = [f"epoch {self.epoch}/{self.epochs}", f"train loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            words.append(f"train accuracy {100 * self.train_accuracy:.2f} %")
        if self.score is not None:
            words.append(f"val {self.score}")
        return "  ".join([*words, f"{self.train_seconds:.1f} s", f"{self.images_per_second:,.0f} images/s"])


@dataclass(frozen=True)
class Remark(Event):
    """What was chosen for a training, a line each."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Resumed(Event):
    """Where a training resumes: steps and whole epochs since its beginning, of ``epochs`` in all."""

    steps_done: int
    epochs_done: int
    epochs: int

    def __str__(self) -> str:
        if self.epochs_done >= self.epochs:
            done = f"all {self.epochs} epochs are" if self.epochs > 1 else "the only epoch is"
            return f"{done} done; evaluating the final model"
        return f"resumes after step {self.steps_done}, with {self.epochs_done} of {self.epochs} epochs done"


MOST_REWINDS = 3


@dataclass(frozen=True)
class Rewind(Event):
    """The return number ``rewind`` to the last checkpoint, on NaN or infinity; ``lr`` is the new peak learning rate."""

    rewind: int
    to_epochs_done: int
    to_steps_done: int
    lr: float
    reason: str

    def __str__(self) -> str:
        back = f"Back to step {self.to_steps_done} with half the lr, {self.lr:g}"
        return f"{self.reason} {back} ({self.rewind} of {MOST_REWINDS} times)."


@dataclass(frozen=True)
class EarlyEnd(Event):
    """The end of a training after ``epoch``, before its last one, by ``Recipe.patience``, a time limit or a diagnosis.

    ``diagnosis`` is its kind, where one ended it; such a run is not finished.
    """

    epoch: int
    reason: str
    diagnosis: str | None = None

    def __str__(self) -> str:
        return f"ended after epoch {self.epoch}: {self.reason}"
