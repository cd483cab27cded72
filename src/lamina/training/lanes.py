"""Sums over the lanes of a step, in an order that does not depend on the number of processes.

**Lanes** are micro-batches with a fixed place in the sum, a binary tree. On the same processor
type, with the same torch version, number of threads of a process and kernels, the weights are
therefore bit-identical for any number of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from lamina.errors import NetError, RecipeError
from lamina.training import group
from lamina.training.batches import Batch, DividedBatch
from lamina.training.events import Epoch
from lamina.training.model import Model
from lamina.training.task import Scalar, Vector

WATCHED_STEPS = 3  # first steps of each epoch, in which lanes are checked for changed buffers
Span = tuple[int, int]  # lanes start to stop - 1: a node of the tree


def halve(span: Span) -> tuple[Span, Span]:
    """A node's two children; the left has the largest power of two below its lane count."""
    start, stop = span
    middle = start + (1 << ((stop - start - 1).bit_length() - 1))
    return (start, middle), (middle, stop)


def cover(span: Span, dealt: range) -> list[Span]:
    """The largest nodes below ``span`` whose lanes are all in ``dealt``, in order."""
    start, stop = span
    if stop <= dealt.start or dealt.stop <= start:
        return []
    if dealt.start <= start and stop <= dealt.stop:
        return [span]
    return [node for half in halve(span) for node in cover(half, dealt)]


def add_up(span: Span, nodes: Mapping[Span, Vector]) -> Vector:
    if span in nodes:
        return nodes[span]
    left, right = halve(span)
    return add_up(left, nodes) + add_up(right, nodes)


def insert(nodes: dict[Span, Vector], lane: int, vector: Vector, span: Span) -> None:
    """Insert a lane's vector; once both children of a node exist, replace them with their sum."""
    if span == (lane, lane + 1):
        nodes[span] = vector
        return
    left, right = halve(span)
    insert(nodes, lane, vector, left if lane < left[1] else right)
    if left in nodes and right in nodes:
        nodes[span] = nodes.pop(left) + nodes.pop(right)


def sum_lanes(
    nodes: Mapping[Span, Vector],
    lanes: int,
    dealt: int,
    empty: Vector,
) -> Vector:
    """Sum the first ``lanes`` of ``dealt``; a process without lanes adds ``empty`` (zeros)."""
    whole: Span = (0, lanes)
    processes = group.size()
    if processes == 1:
        return add_up(whole, nodes)
    spans = [cover(whole, group.deal(dealt, processes, process)) for process in range(processes)]
    sums = [add_up(span, nodes) for span in spans[group.rank()]]
    stacked = torch.stack(sums) if sums else empty.new_zeros(0, len(empty))
    received = group.exchange(stacked, [len(nodes) for nodes in spans])
    all_spans = [span for nodes in spans for span in nodes]
    parts = dict(zip(all_spans, received, strict=True))
    return group.collect(add_up(whole, parts), len(empty))


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums over the lanes of a step that are not written to the model."""

    loss: Scalar  # mean over the images
    correct: Scalar | float  # NaN where predictions are not counted
    interrupts: Scalar | float = 0.0  # number of processes that were interrupted


class OneLane:
    """The sums of a step with a single lane."""

    def share_start(self) -> None:
        """Nothing to share: there is one process."""

    def begin(self, _: DividedBatch) -> None:
        """Nothing to prepare."""

    def add(self, _: Batch, loss: Scalar, correct: Scalar | None) -> None:
        self._sums = Sums(loss.detach(), math.nan if correct is None else correct)

    def finish(self) -> Sums:
        return self._sums


class LaneSums:
    """Sums of gradients, batch-norm statistics and loss over lanes, weighted by image share."""

    def __init__(self, model: Model, lanes: int) -> None:
        self._model = model
        self._lanes = lanes
        self._statistics: list[Tensor] = []
        self._counts: list[Tensor] = []
        for layer in model.modules():
            if isinstance(layer, _NormBase):
                statistics = (layer.running_mean, layer.running_var)
                self._statistics += [tensor for tensor in statistics if tensor is not None]
                if layer.num_batches_tracked is not None:
                    self._counts.append(layer.num_batches_tracked)
        self._buffers = [*self._statistics, *self._counts]
        summed = {id(buffer) for buffer in self._buffers}
        self._constants = [
            name for name, buffer in model.body.named_buffers() if id(buffer) not in summed
        ]

    def share_start(self) -> None:
        """Start all processes from the leader's weights."""
        group.share_weights(self._model)

    def begin(self, divided: DividedBatch) -> None:
        self._divided = divided
        watched = self._constants if divided.step < WATCHED_STEPS else []
        self._expected = {name: self._model.body.get_buffer(name).clone() for name in watched}
        self._weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._nodes: dict[Span, Tensor] = {}
        self._used: set[int] = set()  # indices of the weights that a lane of this process used

    @torch.no_grad()
    def add(self, batch: Batch, loss: Scalar, correct: Scalar | None) -> None:
        """Add a lane's gradients, statistics and loss, and restore the model's earlier state."""
        self._check_constants()
        share = 1.0 if batch.share is None else batch.share
        gradients = []
        is_used = []
        for weight in self._weights:
            is_used.append(weight.grad is not None)
            gradients.append(torch.zeros_like(weight) if weight.grad is None else weight.grad)
            weight.grad = None
        self._used |= {place for place, used in enumerate(is_used) if used}
        changes = []
        for buffer, before in zip(self._buffers, self._before, strict=True):
            changes.append(buffer - before)
            buffer.copy_(before)
        statistics = len(self._statistics)
        is_interrupted = not self._nodes and group.take_interrupt()
        parts = [
            *gradients,
            *(share * change for change in changes[:statistics]),
            *changes[statistics:],
            loss.new_tensor(is_used),
            share * loss.detach(),
            loss.new_full((), math.nan) if correct is None else correct,
            loss.new_tensor(float(is_interrupted)),
        ]
        vector = torch.cat([part.reshape(-1).to(loss.dtype) for part in parts])
        insert(self._nodes, batch.lane, vector, (0, self._divided.lanes))

    def _check_constants(self) -> None:
        for name, expected in self._expected.items():
            if not _are_equal(self._model.body.get_buffer(name), expected):
                raise NetError(
                    f"lanes is {self._lanes}, but the forward pass changes the buffer {name}; the"
                    " trained model would depend on the number of processes. Set lanes to 1, or do"
                    " not change the buffer in training.",
                    field="lanes",
                )

    @torch.no_grad()
    def finish(self) -> Sums:
        scalar = torch.zeros((), device=self._model.device)
        is_used = scalar.expand(len(self._weights))
        parts = [*self._weights, *self._buffers, is_used, scalar, scalar, scalar]  # as in add
        lengths = [part.numel() for part in parts]
        empty = scalar.new_zeros(sum(lengths))
        total = sum_lanes(self._nodes, self._divided.lanes, self._lanes, empty)
        pieces = zip(total.split(lengths), parts, strict=True)
        *sums, lanes, loss, correct, interrupts = (piece.view(part.shape) for piece, part in pieces)
        gradients = sums[: len(self._weights)]
        changes = iter(sums[len(self._weights) :])
        # A weight that no lane used gets no gradient, because an optimizer would decay it for a
        # gradient of zeros. A single process knows these weights without waiting for a GPU.
        if group.size() > 1:
            self._used = {place for place, count in enumerate(lanes.tolist()) if count}
        for place in self._used:
            # Fused optimizers expect the memory layout of the weight.
            weight = self._weights[place]
            weight.grad = torch.empty_like(weight).copy_(gradients[place])
        for statistic in self._statistics:
            statistic += next(changes)
        for count in self._counts:
            count += (next(changes) > 0).to(count.dtype)
        return Sums(loss, correct, interrupts)


def _are_equal(first: Tensor, second: Tensor) -> bool:
    """Like ``torch.equal``, but NaN equals NaN."""
    has_shape = first.shape == second.shape
    return has_shape and bool(((first == second) | (first.isnan() & second.isnan())).all())


@dataclass
class Tally:
    """The sums of the current epoch, kept on the device so that no step waits for the GPU."""

    images: int = 0
    loss: Tensor | float = 0.0
    correct: Tensor | float = 0.0  # NaN where predictions are not counted
    seconds: float = 0.0
    _interrupts: Tensor | float = 0.0
    _clock: float = 0.0

    def start(self) -> None:
        self._clock = time.perf_counter()
        self._interrupts = 0.0

    def pause(self) -> None:
        float(self.loss)
        self.seconds += time.perf_counter() - self._clock

    def add(self, sums: Sums, images: int) -> None:
        self.images += images
        self.loss = self.loss + sums.loss * images
        self.correct = self.correct + sums.correct
        self._interrupts = self._interrupts + sums.interrupts

    @property
    def is_interrupted(self) -> bool:
        return bool(self._interrupts)

    def values(self) -> tuple[int, float, float | None, float]:
        correct = float(self.correct)
        return self.images, float(self.loss), None if math.isnan(correct) else correct, self.seconds

    def summarize(self, epoch: int, epochs: int | None, lr: float) -> Epoch:
        images, loss, correct, seconds = self.values()
        accuracy = None if correct is None else correct / images
        return Epoch(epoch, epochs, loss / images, accuracy, seconds, images / seconds, lr)


def check_alone(what: str) -> None:
    """Raise ``RecipeError`` in a group of processes, whose clocks and choices would differ."""
    if group.size() > 1:
        raise RecipeError(
            f"{what} needs a single process, but {group.size()} train together. Leave out torchrun,"
            " or name the net and the number of epochs."
        )


def deal_lanes(lanes: int) -> range:
    """The lanes that this process computes; ``RecipeError`` if there are more processes."""
    processes = group.size()
    if processes > lanes:
        raise RecipeError(
            f"lanes is {lanes}, but {processes} processes train together and each needs at least"
            f" one lane. Set lanes to {processes} or more, such as"
            f" {1 << (processes - 1).bit_length()}.",
            field="lanes",
        )
    return group.deal(lanes, processes, group.rank())
