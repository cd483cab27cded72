"""The loss, the probabilities and the accuracy for each kind of target."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Num, Shaped, UInt8
from torch import Tensor
from torch.nn import functional

from lamina import targets
from lamina.data import Images
from lamina.errors import RecipeError, RunError
from lamina.targets import Kind
from lamina.values import fields_to_json, from_json_values

Pixels = UInt8[np.ndarray, "n h w c"]
PixelTensor = UInt8[Tensor, "n h w c"]
BatchTensor = UInt8[Tensor, "b y x c"]  # some of these images, perhaps of another size
AnyPixels = PixelTensor | Float[Tensor, "n h w c"]  # from 0 to 255; floats if augmented
Indices = Int64[Tensor, " _"]
Vector = Float[Tensor, " n"]
Features = Float[Tensor, "n d"]
Scalar = Float[Tensor, ""]
Logits = Float[Tensor, "n k"]
LogitsArray = Float32[np.ndarray, "n k"]
Targets = Num[Tensor, "n ..."] | Bool[Tensor, "n ..."]
Weights = Float[Tensor, "n ..."]
Losses = Float[Tensor, "*targets"]  # of each target, or their mean
Truth = Shaped[Tensor, "n c"]
Reduction: TypeAlias = Literal["mean", "none"]


@dataclass(frozen=True, eq=False)
class Columns:
    """Predictions of n images, with a column for each class (or no and yes), label or number.

    Attributes:
        scores: values to rank the images by, such as probabilities or logits; for regression, the
            numbers.
        chosen: whether each class or label is predicted; for regression, the numbers.
    """

    scores: Float[Tensor, "n c"]
    chosen: Shaped[Tensor, "n c"]


@dataclass(frozen=True, repr=False)
class Task(ABC):
    """A kind of target, with its loss, the meaning of the logits, and the baseline's targets."""

    # names of the classes, labels or numbers, or the yes-or-no question
    target_names: tuple[str, ...]
    # the score of reports, one of ``Kind.metrics`` or your own; empty for the default
    metric: str = field(default="", kw_only=True)
    kind: ClassVar[Kind]

    @property
    def outputs(self) -> int:
        """Number of logits per image."""
        return len(self.target_names)

    @property
    def score_name(self) -> str:
        """The name of the metric that is the score."""
        return self.metric or self.kind.metrics[0]

    @property
    def cutoffs(self) -> tuple[float, ...]:
        """The threshold of each output's probability; empty unless outputs are yes or no."""
        return ()

    @property
    def untrained_loss(self) -> float:
        """The loss if all logits are 0."""
        return math.log(2)

    def __repr__(self) -> str:
        return f"Task({self.kind.describe(self.target_names)})"

    def prepare(self, targets: Targets, dtype: torch.dtype = torch.float32) -> Tensor:
        """Targets as the loss needs them.

        Class indices (N,), 0.0 or 1.0 (N, K), or standardized numbers (N, K).
        """
        del dtype
        return targets

    @abstractmethod
    def loss(
        self,
        logits: Logits,
        prepared: Tensor,
        label_smoothing: float = 0.0,
        weights: Weights | None = None,
        reduction: Reduction = "mean",
    ) -> Losses:
        """The mean loss of a batch with prepared targets; ``weights`` multiply each target's loss.

        With ``reduction`` ``"none"``, the losses of the targets, (N,) or (N, K). For classes, the
        targets may also be probabilities (N, K).
        """

    @abstractmethod
    def weigh(self, targets: Targets) -> Weights:
        """The class weight of each target, 1 on average."""

    @abstractmethod
    def probabilities(self, logits: Logits) -> Logits:
        """Probabilities, calibrated if there are temperatures.

        For regression, numbers in the units of the targets.
        """

    @abstractmethod
    def decide(self, logits: Logits) -> Num[Tensor, "n ..."] | Bool[Tensor, "n k"]:
        """Predictions: class indices (N,), whether labels apply (N, K), or numbers (N, K)."""

    def expand(self, probabilities: Logits) -> Float[Tensor, "n c"]:
        """Probabilities with a column for each class or label: for yes or no, two columns."""
        return probabilities

    @abstractmethod
    def to_columns(self, logits: Logits) -> Columns:
        """Scores and predictions with a column for each class, label or number."""

    @abstractmethod
    def to_truth(self, targets: Targets) -> Truth:
        """Targets with a column for each class, label or number."""

    @abstractmethod
    def correct(self, logits: Logits, targets: Targets) -> Scalar:
        """Number of correct predictions in a batch; NaN for regression."""

    def with_temperatures(self, temperatures: tuple[float, ...]) -> Task:
        """The task with other temperatures, which divide the logits; not for regression."""
        return replace(self, temperatures=temperatures)  # type: ignore[call-arg]

    def to_json(self) -> dict[str, Any]:
        """The task as JSON values, with its kind."""
        return {"kind": self.kind.name, **fields_to_json(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Task:
        """The task that :meth:`to_json` wrote; raises ``RunError`` if the values are invalid."""
        tasks = {task.kind.name: task for task in (SingleLabel, MultiLabel, Binary, Regression)}
        fields = dict(values)
        try:
            return from_json_values(tasks[fields.pop("kind")], fields, "task")
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"Expected a task such as {{'kind': 'single-label', …}}, got {values!r}."
            ) from error


@final
@dataclass(frozen=True, repr=False)
class SingleLabel(Task):
    """One class per image: softmax and cross-entropy.

    Attributes:
        shares: Fraction of the training images in each class, from 0 to 1.
        temperatures: Empty, or one value that divides the logits before the softmax; the loss
            ignores it.

    >>> SingleLabel(("cat", "dog"), shares=(0.75, 0.25)).weigh(torch.tensor([0, 0, 0, 1]))
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """

    shares: tuple[float, ...]
    temperatures: tuple[float, ...] = ()
    kind = targets.SINGLE_LABEL

    def loss(
        self,
        logits: Logits,
        prepared: Tensor,
        label_smoothing: float = 0.0,
        weights: Weights | None = None,
        reduction: Reduction = "mean",
    ) -> Losses:
        if weights is None:
            return functional.cross_entropy(
                logits, prepared, label_smoothing=label_smoothing, reduction=reduction
            )
        # torch's own class weights divide by their sum over the batch, so a rare class would count
        # less in the batches that contain it, and they weight the smoothed part by the other
        # classes.
        losses = weights * functional.cross_entropy(
            logits, prepared, label_smoothing=label_smoothing, reduction="none"
        )
        return losses.mean() if reduction == "mean" else losses

    @property
    def untrained_loss(self) -> float:
        return math.log(self.outputs)

    def weigh(self, targets: Targets) -> Weights:
        """Inverse class frequency: 1 for a class with an average number of images."""
        return _inverse_shares(torch.bincount(targets, minlength=self.outputs))[targets]

    def probabilities(self, logits: Logits) -> Logits:
        return _soften(logits, self.temperatures).softmax(dim=1)

    def decide(self, logits: Logits) -> Indices:
        return logits.argmax(dim=1)

    def to_columns(self, logits: Logits) -> Columns:
        return Columns(self.probabilities(logits), self.to_truth(self.decide(logits)))

    def to_truth(self, targets: Targets) -> Bool[Tensor, "n c"]:
        return functional.one_hot(targets, self.outputs).bool()

    def correct(self, logits: Logits, targets: Targets) -> Scalar:
        return (logits.argmax(dim=1) == targets).sum(dtype=torch.float32)


@dataclass(frozen=True, repr=False)
class _SigmoidTask(Task):
    """A sigmoid and binary cross-entropy for each output; fields as in :class:`SingleLabel`.

    Attributes:
        thresholds: Probabilities above which each output is predicted; empty for 0.5.
    """

    shares: tuple[float, ...]
    temperatures: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()

    def prepare(self, targets: Targets, dtype: torch.dtype = torch.float32) -> Tensor:
        return targets.to(dtype).view(len(targets), -1)

    def loss(
        self,
        logits: Logits,
        prepared: Tensor,
        label_smoothing: float = 0.0,
        weights: Weights | None = None,
        reduction: Reduction = "mean",
    ) -> Losses:
        smoothed = prepared * (1 - label_smoothing) + label_smoothing / 2
        weights = None if weights is None else weights.view_as(logits)
        return functional.binary_cross_entropy_with_logits(
            logits, smoothed, weights, reduction=reduction
        )

    def weigh(self, targets: Targets) -> Weights:
        """Positives and negatives of each output get equal total weight."""
        columns = targets.long().view(len(targets), -1).T
        weights = [
            _inverse_shares(torch.bincount(column, minlength=2))[column] for column in columns
        ]
        return torch.stack(weights, dim=1).view_as(targets)

    def probabilities(self, logits: Logits) -> Logits:
        return _soften(logits, self.temperatures).sigmoid()

    def with_temperatures(self, temperatures: tuple[float, ...]) -> Task:
        """The task with other temperatures; the same logits pass the changed thresholds."""
        ones = (1.0,) * self.outputs
        thresholds = tuple(
            value if value in (0, 1) else 1 / (1 + (1 / value - 1) ** (before / after))
            for value, before, after in zip(
                self.thresholds, self.temperatures or ones, temperatures or ones, strict=False
            )
        )
        return replace(self, temperatures=temperatures, thresholds=thresholds)

    @property
    def cutoffs(self) -> tuple[float, ...]:
        """The thresholds in float32, like the probabilities that are compared with them."""
        return tuple(np.array(self.thresholds or (0.5,) * self.outputs, np.float32).tolist())

    def decide(self, logits: Logits) -> Bool[Tensor, "n k"]:
        """Whether each output's probability exceeds its threshold, in float32 as in exports."""
        probabilities = self.probabilities(logits.float())
        return probabilities > probabilities.new_tensor(self.cutoffs)

    def correct(self, logits: Logits, targets: Targets) -> Scalar:
        """The fraction of correct labels per image, summed over the batch."""
        return ((logits > 0) == targets.view_as(logits)).float().mean(dim=1).sum()


@final
@dataclass(frozen=True, repr=False)
class MultiLabel(_SigmoidTask):
    """Any number of labels per image."""

    kind = targets.MULTI_LABEL

    def to_columns(self, logits: Logits) -> Columns:
        return Columns(logits, self.decide(logits))

    def to_truth(self, targets: Targets) -> Bool[Tensor, "n c"]:
        return targets


@final
@dataclass(frozen=True, repr=False)
class Binary(_SigmoidTask):
    """A yes-or-no question: one output, and two columns, no and yes."""

    kind = targets.BINARY

    def expand(self, probabilities: Logits) -> Float[Tensor, "n c"]:
        return torch.cat([1 - probabilities, probabilities], dim=1)

    def to_columns(self, logits: Logits) -> Columns:
        scores = torch.cat([-logits, logits], dim=1)
        return Columns(scores, self.to_truth(self.decide(logits)[:, 0]))

    def to_truth(self, targets: Targets) -> Bool[Tensor, "n c"]:
        return functional.one_hot(targets.long(), 2).bool()


@final
@dataclass(frozen=True, repr=False)
class Regression(Task):
    """One or more numbers per image, standardized over the training images: mean squared error."""

    medians: tuple[float, ...]
    means: tuple[float, ...]
    standard_deviations: tuple[float, ...]
    kind = targets.REGRESSION

    def prepare(self, targets: Targets, dtype: torch.dtype = torch.float32) -> Tensor:
        targets = targets.to(dtype)
        return (targets - targets.new_tensor(self.means)) / targets.new_tensor(
            self.standard_deviations
        )

    def loss(
        self,
        logits: Logits,
        prepared: Tensor,
        label_smoothing: float = 0.0,
        weights: Weights | None = None,
        reduction: Reduction = "mean",
    ) -> Losses:
        """Squared error of the standardized numbers; ignores smoothing and weights."""
        del label_smoothing, weights
        return functional.mse_loss(logits, prepared, reduction=reduction)

    @property
    def untrained_loss(self) -> float:
        return 1.0  # the variance of standardized numbers

    def weigh(self, targets: Targets) -> Weights:
        del targets
        raise RecipeError(
            "class_weights is True, but the targets are numbers; only classes have weights. Remove"
            " class_weights from the recipe.",
            field="class_weights",
        )

    def probabilities(self, logits: Logits) -> Logits:
        return logits * logits.new_tensor(self.standard_deviations) + logits.new_tensor(self.means)

    def decide(self, logits: Logits) -> Logits:
        return self.probabilities(logits)

    def to_columns(self, logits: Logits) -> Columns:
        numbers = self.probabilities(logits)
        return Columns(numbers, numbers)

    def to_truth(self, targets: Targets) -> Float[Tensor, "n c"]:
        return targets.double()

    def correct(self, logits: Logits, targets: Targets) -> Scalar:
        """NaN, because accuracy does not apply to regression."""
        del targets
        return logits.new_tensor(math.nan)


def task_of(images: Images) -> Task:
    names = tuple(images.target_names)
    values = images.targets
    if images.kind is targets.REGRESSION:
        medians = np.median(values.astype(np.float64), axis=0)
        means = values.mean(axis=0, dtype=np.float64)
        is_constant = (values == values[:1]).all(axis=0)
        deviations = np.where(is_constant, 1.0, values.std(axis=0, dtype=np.float64))
        statistics = (medians, means, deviations)
        return Regression(names, *(tuple(numbers.tolist()) for numbers in statistics))
    if images.kind is targets.SINGLE_LABEL:
        shares = np.bincount(values, minlength=len(names)) / len(values)
        return SingleLabel(names, tuple(shares.tolist()))
    shares = values.reshape(len(values), -1).mean(axis=0)
    task = MultiLabel if images.kind is targets.MULTI_LABEL else Binary
    return task(names, tuple(shares.tolist()))


def _soften(logits: Logits, temperatures: tuple[float, ...]) -> Logits:
    return logits / logits.new_tensor(temperatures) if temperatures else logits


def _inverse_shares(counts: Indices) -> Vector:
    """The mean count of the classes that have images, divided by each count."""
    mean_count = counts.sum(dtype=torch.float64) / (counts > 0).sum()
    return (mean_count / counts).float()
