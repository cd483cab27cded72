"""What the targets are decides what the outputs mean, the loss, and when an answer is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor
from torch.nn import functional

from lamina import targets
from lamina.data import Images
from lamina.errors import RecipeError, RunError
from lamina.targets import Kind
from lamina.values import from_plain


@dataclass(frozen=True)
class Task(ABC):
    """How logits are read, scored and learned from.

    Attributes:
        target_names: the classes, the labels, the question or the numbers, one a name.
    """

    target_names: tuple[str, ...]
    kind: ClassVar[Kind]

    @property
    def outputs(self) -> int:
        """How many logits an image gets."""
        return len(self.target_names)

    @abstractmethod
    def loss(
        self,
        logits: Float[Tensor, "n k"],
        targets: Num[Tensor, "n ..."] | Bool[Tensor, "n ..."],
        label_smoothing: float = 0.0,
        weights: Float[Tensor, "n ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean loss of a batch, that of each target times its weight where there are weights."""

    @abstractmethod
    def weigh(self, targets: Num[Tensor, "n ..."] | Bool[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """What to multiply the loss of each of a training's targets with, so that all classes count alike.

        The weight is the inverse of how frequent the target's class is among ``targets``, and 1 in the mean over them.

        Raises:
            RecipeError: the task has no classes.
        """

    @abstractmethod
    def probabilities(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """What the logits say, in the targets' own terms."""

    @abstractmethod
    def correct(
        self, logits: Float[Tensor, "n k"], targets: Num[Tensor, "n ..."] | Bool[Tensor, "n ..."]
    ) -> Float[Tensor, ""] | None:
        """How many answers of a batch are right; ``None`` where an answer is nearer or farther, not right or wrong."""

    def to_json(self) -> dict[str, Any]:
        """The task as plain values."""
        return {"kind": self.kind.name, "target_names": list(self.target_names)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Task:
        """The task that :meth:`to_json` wrote.

        Raises:
            RunError: the values are not a task's.
        """
        try:
            kind = next(
                kind for kind in (SingleLabel, MultiLabel, Binary, Regression) if kind.kind.name == values["kind"]
            )
            return from_plain(kind, {name: value for name, value in values.items() if name != "kind"}, "task")
        except (StopIteration, KeyError, ValueError) as error:
            raise RunError(f"Expected a task such as {{'kind': 'single-label', …}}, got {values!r}.") from error


@final
@dataclass(frozen=True)
class SingleLabel(Task):
    """Each image is of exactly one class: softmax and cross-entropy.

    >>> task = SingleLabel(("cat", "dog"))
    >>> task.probabilities(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    >>> task.weigh(torch.tensor([0, 0, 0, 1]))
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """

    kind = targets.SINGLE_LABEL

    def loss(
        self,
        logits: Float[Tensor, "n k"],
        targets: Int64[Tensor, " n"],
        label_smoothing: float = 0.0,
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Categorical cross-entropy, the softmax within it."""
        if weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        # torch's own weights would divide by their sum over the batch, so that a rare class counted less in a batch
        # that it is in, and would weigh the smoothed part by classes that the image is not of.
        losses = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
        return (losses * weights).mean()

    def weigh(self, targets: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """By the class of each image; of a class that has its mean share of the images, 1."""
        return _inverse_shares(torch.bincount(targets, minlength=self.outputs))[targets]

    def probabilities(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Softmax: positive, summing to one."""
        return logits.softmax(dim=1)

    def correct(self, logits: Float[Tensor, "n k"], targets: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
        """How many images have their own class on top."""
        return (logits.argmax(dim=1) == targets).sum(dtype=torch.float32)


@final
@dataclass(frozen=True)
class MultiLabel(Task):
    """Each image has any number of labels: a sigmoid and binary cross-entropy for each."""

    kind = targets.MULTI_LABEL

    def loss(
        self,
        logits: Float[Tensor, "n k"],
        targets: Bool[Tensor, "n k"],
        label_smoothing: float = 0.0,
        weights: Float[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy, the mean over images and labels."""
        smoothed = _smoothed(targets, logits, label_smoothing)
        return functional.binary_cross_entropy_with_logits(logits, smoothed, weights)

    def weigh(self, targets: Bool[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Label by label: the images that have it count as much together as those that do not."""
        return torch.stack([_weigh_answers(column) for column in targets.T], dim=1)

    def probabilities(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Sigmoid: each label on its own."""
        return logits.sigmoid()

    def correct(self, logits: Float[Tensor, "n k"], targets: Bool[Tensor, "n k"]) -> Float[Tensor, ""]:
        """The share of an image's labels that are right, summed over the batch."""
        return ((logits > 0) == targets).float().mean(dim=1).sum()


@final
@dataclass(frozen=True)
class Binary(Task):
    """Each image answers one question with yes or no: one output, a sigmoid and binary cross-entropy."""

    kind = targets.BINARY

    def loss(
        self,
        logits: Float[Tensor, "n 1"],
        targets: Bool[Tensor, " n"],
        label_smoothing: float = 0.0,
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy."""
        answers = logits.squeeze(1)
        smoothed = _smoothed(targets, answers, label_smoothing)
        return functional.binary_cross_entropy_with_logits(answers, smoothed, weights)

    def weigh(self, targets: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The images of yes count as much together as those of no."""
        return _weigh_answers(targets)

    def probabilities(self, logits: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """Sigmoid: how likely yes is."""
        return logits.sigmoid()

    def correct(self, logits: Float[Tensor, "n 1"], targets: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
        """How many answers are right."""
        return ((logits.squeeze(1) > 0) == targets).sum(dtype=torch.float32)


@final
@dataclass(frozen=True)
class Regression(Task):
    """Each image has one number or several: mean squared error.

    A net learns numbers in deviations from their mean, so that degrees and millimetres weigh the same.

    Attributes:
        means: of each number over the training images, in its own unit.
        deviations: standard deviation of each, in its own unit.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    kind = targets.REGRESSION

    def loss(
        self,
        logits: Float[Tensor, "n k"],
        targets: Float[Tensor, "n k"],
        label_smoothing: float = 0.0,
        weights: Float[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error in deviations; numbers have no labels to smooth, and no classes to weigh."""
        del label_smoothing, weights
        means, deviations = logits.new_tensor(self.means), logits.new_tensor(self.deviations)
        return functional.mse_loss(logits, (targets - means) / deviations)

    def weigh(self, targets: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Nothing to weigh by: raises RecipeError."""
        del targets
        raise RecipeError("balance was 'on', but numbers have no classes to balance. Set it to 'off'.")

    def probabilities(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The numbers, in their own units."""
        return logits * logits.new_tensor(self.deviations) + logits.new_tensor(self.means)

    def correct(self, logits: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> None:
        """Nothing: a number is near or far, not right or wrong."""

    def to_json(self) -> dict[str, Any]:
        """The task as plain values."""
        return {**super().to_json(), "means": list(self.means), "deviations": list(self.deviations)}


def task_of(images: Images) -> Task:
    """The task that these images' targets set.

    >>> from lamina.data import load_data
    >>> str(task_of(load_data("shapes").train).kind)
    'single-label'
    """
    names = tuple(images.target_names)
    if images.kind is targets.REGRESSION:
        values = images.targets
        deviations = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0, dtype=np.float64), 1.0)
        means = values.mean(axis=0, dtype=np.float64)
        return Regression(names, tuple(means.tolist()), tuple(deviations.tolist()))
    return next(task for task in (SingleLabel, MultiLabel, Binary) if task.kind is images.kind)(names)


def _weigh_answers(targets: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    answers = targets.long()
    return _inverse_shares(torch.bincount(answers, minlength=2))[answers]


def _inverse_shares(counts: Int64[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The mean count over each count; the mean is over the classes that have images."""
    mean_count = counts.sum(dtype=torch.float64) / (counts > 0).sum()
    return (mean_count / counts).float()


def _smoothed(
    targets: Bool[Tensor, "*shape"], logits: Float[Tensor, "*shape"], label_smoothing: float
) -> Float[Tensor, "*shape"]:
    return targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
