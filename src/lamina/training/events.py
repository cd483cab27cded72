"""What a training yields: frozen records of steps and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step inside an epoch; the last one of an epoch gives an Epoch record instead.

    Attributes:
        epoch: from 1.
        step: steps done in this epoch, of ``steps``.
        loss: of the step's batch.
    """

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class LayerFigures:
    """What the layers of a net did in an epoch, to four digits: in each sequence a figure for each of the ``names``.

    A figure is ``None`` where a layer has none, or where it was not taken in this epoch.

    Attributes:
        names: of the layers, such as ``2 Linear``, in the order of the net.
        gradient_norms: of the weights' gradient in the epoch's last step.
        weight_norms: of the weights before it.
        update_norms: of their change by it.
        input_means: of what the layer is given for some fixed images after the epoch.
        input_deviations: its standard deviation.
        inactive_fractions: units of a ReLU that are 0 for all of these images, or outputs of a Sigmoid or Tanh at an
            end of its range.
    """

    names: Sequence[str]
    gradient_norms: Sequence[float | None]
    weight_norms: Sequence[float | None]
    update_norms: Sequence[float | None]
    input_means: Sequence[float | None]
    input_deviations: Sequence[float | None]
    inactive_fractions: Sequence[float | None]


@dataclass(frozen=True)
class Epoch:
    """The figures of one pass over the training images.

    Attributes:
        epoch: from 1 to ``epochs``.
        train_loss: mean over the epoch's batches as they were trained on; weighted where the recipe balances.
        train_accuracy: fraction of right answers in them; ``None`` where answers are not right or wrong.
        train_seconds: time spent in this epoch's training steps alone.
        images_per_second: training images over ``train_seconds``.
        lr: learning rate of the last step.
        layers: what its layers did; ``None`` where that was not looked at.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float | None
    train_seconds: float
    images_per_second: float
    lr: float
    layers: LayerFigures | None = field(default=None, repr=False)

    def __str__(self) -> str:
        words = [f"epoch {self.epoch}/{self.epochs}", f"train loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            words.append(f"train accuracy {100 * self.train_accuracy:.2f} %")
        return "  ".join([*words, f"{self.train_seconds:.1f} s", f"{self.images_per_second:,.0f} images/s"])


@dataclass
class Tally:
    """The sums of an epoch so far, kept on the device, so that no step waits for a number to be read."""

    images: int = 0
    loss: Tensor | float = 0.0
    correct: Tensor | float | None = 0.0
    seconds: float = 0.0

    def add(self, loss: Tensor, correct: Tensor | None, images: int) -> None:
        """Add a batch: its mean loss, its number of right answers, its size."""
        self.images += images
        self.loss = self.loss + loss.detach() * images
        self.correct = None if correct is None or self.correct is None else self.correct + correct

    def summarize(self, epoch: int, epochs: int, lr: float) -> Epoch:
        """The record of the whole epoch."""
        return Epoch(
            epoch=epoch,
            epochs=epochs,
            train_loss=float(self.loss) / self.images,
            train_accuracy=None if self.correct is None else float(self.correct) / self.images,
            train_seconds=self.seconds,
            images_per_second=self.images / self.seconds,
            lr=lr,
        )
