"""What a training tells: frozen records of steps and epochs, and what an epoch adds up until then."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Where a training stands inside an epoch; an Epoch record takes the place of its last Step.

    Attributes:
        epoch: from 1.
        step: steps done in this epoch.
        steps: steps in an epoch.
        loss: of the batch that this step learned from.
    """

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Attributes:
        epoch: from 1.
        epochs: how many there will be.
        train_loss: mean over the epoch's images, each as the net was when it met them, and weighed as it learned from
            them where the recipe balances.
        train_accuracy: share that was right, likewise; ``None`` where answers are not right or wrong.
        train_seconds: time in training steps alone, this epoch.
        images_per_second: training images over ``train_seconds``.
        lr: learning rate of the last step.
    """

    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float | None
    train_seconds: float
    images_per_second: float
    lr: float


@dataclass
class Tally:
    """What an epoch has added up so far; on the device, so that no step waits for a number to be read."""

    images: int = 0
    loss: Tensor | float = 0.0
    correct: Tensor | float | None = 0.0
    seconds: float = 0.0

    def add(self, loss: Tensor, correct: Tensor | None, images: int) -> None:
        """Add a batch: its mean loss, its right answers, its size."""
        self.images += images
        self.loss = self.loss + loss.detach() * images
        self.correct = None if correct is None or self.correct is None else self.correct + correct
