"""Training events: frozen dataclasses, printed as text and stored as JSON."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lamina.errors import plural
from lamina.targets import Score

DiagnosisKind = Literal[
    "learning-rate-too-high",
    "exploding-gradients",
    "dying-relu",
    "vanishing-gradients",
    "learning-rate-too-low",
    "overfitting",
]


@dataclass(frozen=True)
class Event:
    """Base class of the training events."""

    def to_json(self) -> dict[str, Any]:
        """The event as JSON: ``event`` is its name; NaN and infinity become ``None``.

        >>> Step(epoch=1, step=10, steps=79, loss=2.25).to_json()
        {'event': 'step', 'epoch': 1, 'step': 10, 'steps': 79, 'loss': 2.25}
        """
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return {"event": name, **_plain(dataclasses.asdict(self))}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Step(Event):
    """A training step; the last step of an epoch yields an :class:`Epoch` instead.

    Attributes:
        epoch: Current epoch, from 1.
        step: Number of steps done in this epoch.
        steps: Number of steps per epoch.
        loss: Training loss of this step's batch.
    """

    epoch: int
    step: int
    steps: int
    loss: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}  step {self.step}/{self.steps}  train loss {self.loss:.4f}"


@dataclass(frozen=True)
class LayerStatistics:
    """Each layer's statistics after an epoch, to four digits; one value or ``None`` per name."""

    names: Sequence[str]  # layers in the order of the net, such as ``2 Linear``
    # length of the weight gradient in the last step of the epoch
    gradient_norms: Sequence[float | None]
    weight_norms: Sequence[float | None]  # length of the weights before that step
    update_norms: Sequence[float | None]  # length of their change in that step
    input_means: Sequence[float | None]  # over some fixed images, after the epoch
    input_standard_deviations: Sequence[float | None]  # over these images
    dead_fractions: Sequence[float | None]  # of a ReLU's units: 0 for all of these images


@dataclass(frozen=True)
class Diagnosis(Event):
    """A problem found during training.

    Attributes:
        kind: Kind of problem, such as ``dying-relu``.
        epoch: Epoch in which it was found, from 1.
        layer: Affected layer, as named in ``Epoch.layers``, or ``None``.
        evidence: Measured values by name.
        finding: What was measured, in a sentence.
        advice: The likely cause, and what to try besides ``change``.
        change: Fields of the recipe to try, with their values as text; empty if there are none.
    """

    kind: DiagnosisKind
    epoch: int
    layer: str | None
    evidence: Mapping[str, float | None]
    finding: str
    advice: str
    change: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"diagnosis: {self.kind}: {self.explain()}"

    def explain(self) -> str:
        """The finding, the advice and the settings to try, in sentences."""
        changes = [f"Try {name} {value}." for name, value in self.change.items()]
        return " ".join([self.finding, self.advice, *changes])


@dataclass(frozen=True)
class Epoch(Event):
    """One pass over the training images.

    Attributes:
        epoch: Completed epoch, from 1.
        epochs: Number of epochs; ``None`` if it is not decided yet.
        train_loss: Mean loss of the augmented batches, with class weights if the recipe has them.
        train_accuracy: Fraction of correct predictions in these batches; ``None`` for regression.
        train_seconds: Time of the training steps, in seconds, without evaluation and saving.
        images_per_second: Number of training images divided by ``train_seconds``.
        lr: Learning rate of the last step.
        layers: Statistics of each layer; ``None`` if they were not measured after this epoch.
        diagnoses: Problems found after this epoch.
        score: Main score on ``val``, if a run evaluated it after this epoch.
        metrics: All metrics on ``val`` by name, such as ``val_accuracy`` and ``val_loss``.
        weights: Digest of the model's weights, if a run computed it.
    """

    epoch: int
    epochs: int | None
    train_loss: float
    train_accuracy: float | None
    train_seconds: float
    images_per_second: float
    lr: float
    layers: LayerStatistics | None = field(default=None, repr=False)
    diagnoses: tuple[Diagnosis, ...] = ()
    score: Score | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    weights: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values, with each metric as a field, and without ``score``."""
        values = super().to_json()
        del values["score"]
        metrics = values.pop("metrics")
        last = {
            name: value
            for name in ("weights", "layers", "diagnoses")
            if (value := values.pop(name))
        }
        return {**values, **metrics, **last}

    def __str__(self) -> str:
        of = "" if self.epochs is None else f"/{self.epochs}"
        words = [f"epoch {self.epoch}{of}", f"train loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            words.append(f"train accuracy {100 * self.train_accuracy:.2f} %")
        if self.score is not None:
            words.append(f"val {self.score}")
        return "  ".join(
            [*words, f"{self.train_seconds:.1f} s", f"{self.images_per_second:,.0f} images/s"]
        )


@dataclass(frozen=True)
class Remark(Event):
    """Lines of text about training, such as its data and its recipe."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Trying(Event):
    """A net that lamina times or trains briefly, to choose what to train."""

    net: str
    side_px: int

    def __str__(self) -> str:
        return f"trying {self.net} at {self.side_px} px"


@dataclass(frozen=True)
class Resumed(Event):
    """The start of a resumed training, with the number of steps and epochs already done."""

    steps_done: int
    epochs_done: int
    epochs: int | None

    def __str__(self) -> str:
        if self.epochs is None:
            return f"resumes after step {self.steps_done}, with {self.epochs_done} epochs done"
        if self.epochs_done >= self.epochs:
            done = f"all {self.epochs} epochs are" if self.epochs > 1 else "the only epoch is"
            return f"{done} done; evaluating the model"
        return (
            f"resuming after step {self.steps_done}, with {self.epochs_done} of {self.epochs}"
            " epochs done"
        )


@dataclass(frozen=True)
class Cooldown(Event):
    """The learning rate starts to fall in ``epoch``, to zero over ``steps`` steps."""

    epoch: int
    steps: int
    reason: str

    def __str__(self) -> str:
        steps = plural(self.steps, "step", "steps")
        return (
            f"epoch {self.epoch}: the learning rate falls to zero over the next {steps}:"
            f" {self.reason}"
        )


@dataclass(frozen=True)
class FeatureProgress(Event):
    """Number of ``images`` whose features are computed, before a head is fitted to them."""

    done: int
    images: int

    def __str__(self) -> str:
        return f"features {self.done:,}/{self.images:,}"


@dataclass(frozen=True)
class HeadFit(Event):
    """A head that was fitted to the features of a pretrained net, before the first step.

    Attributes:
        images: Number of training images that it was fitted to.
        features: Number of features of an image.
        penalty: Factor of half the squared weights in the sum of losses, chosen by cross-validation
            if possible.
        loss: Mean loss of images that the heads of the cross-validation were not fitted to; NaN
            without cross-validation.
        accuracy: Fraction of correct predictions for these images; ``None`` for regression.
        seconds: Time of features and fits.
    """

    images: int
    features: int
    penalty: float
    loss: float
    accuracy: float | None
    seconds: float

    def __str__(self) -> str:
        score = (
            f"loss {self.loss:.3f}"
            if self.accuracy is None
            else f"accuracy {100 * self.accuracy:.1f} %"
        )
        source = (
            "too few images for cross-validation"
            if math.isnan(self.loss)
            else f"cross-validation: {score}"
        )
        return (
            f"head: fitted to {self.features:,} features of"
            f" {plural(self.images, 'image', 'images')} in {self.seconds:.1f} s ({source}, penalty"
            f" {self.penalty:g})"
        )


@dataclass(frozen=True)
class EarlyEnd(Event):
    """Training ended before its last epoch, by ``Recipe.patience`` or a time limit."""

    epoch: int
    reason: str

    def __str__(self) -> str:
        return f"ended after epoch {self.epoch}: {self.reason}"
