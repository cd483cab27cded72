"""Batches divided into lanes, and what the lanes of a step add up to, in an order that no number of processes changes.

A recipe with ``lanes`` V divides each batch into V nearly equal parts. Each has its own forward and backward pass, its
own dropout, and batch norms over its own images. What they give is added along a binary tree over the lanes, which is
the same however they are dealt to processes. So the weights are the same to the bit with any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from lamina.errors import RecipeError
from lamina.targets import REGRESSION
from lamina.training.batches import LEAST_IN_LANE, Batch, DividedBatch
from lamina.training.group import Group
from lamina.training.model import Model
from lamina.training.recipe import Recipe

Span = tuple[int, int]
"""Neighbouring lanes, from the first to before the last: a node of the tree."""


def halve(span: Span) -> tuple[Span, Span]:
    """The two nodes below one: the left has the largest power of two of its lanes that leaves some for the right.

    >>> halve((0, 5))
    ((0, 4), (4, 5))
    """
    start, stop = span
    middle = start + (1 << ((stop - start - 1).bit_length() - 1))
    return (start, middle), (middle, stop)


def cover(span: Span, own: range) -> list[Span]:
    """The largest nodes below ``span`` whose lanes are all among ``own``, in order.

    >>> cover((0, 4), range(1, 4))
    [(1, 2), (2, 4)]
    """
    start, stop = span
    if stop <= own.start or own.stop <= start:
        return []
    if own.start <= start and stop <= own.stop:
        return [span]
    return [node for half in halve(span) for node in cover(half, own)]


def add_up(span: Span, nodes: Mapping[Span, Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
    """The sum of a node, from the nodes that are known below it."""
    if span in nodes:
        return nodes[span]
    left, right = halve(span)
    return add_up(left, nodes) + add_up(right, nodes)


def insert(nodes: dict[Span, Float[Tensor, " n"]], lane: int, vector: Float[Tensor, " n"], lanes: int) -> None:
    """Add what a lane gives to the nodes that are known, and replace two halves by their sum as soon as both are there.

    So only a few vectors are kept, however many lanes a process has.

    >>> nodes = {}
    >>> for lane in range(3):
    ...     insert(nodes, lane, torch.ones(1), lanes=4)
    >>> list(nodes)
    [(0, 2), (2, 3)]
    """
    above, span = [], (0, lanes)
    while span[1] - span[0] > 1:
        above.append(span)
        left, right = halve(span)
        span = left if lane < left[1] else right
    nodes[span] = vector
    for node in reversed(above):
        left, right = halve(node)
        if not (left in nodes and right in nodes):
            break
        nodes[node] = nodes.pop(left) + nodes.pop(right)


def sum_lanes(
    nodes: Mapping[Span, Float[Tensor, " n"]], lanes: int, owned: int, empty: Float[Tensor, " n"], group: Group
) -> Float[Tensor, " n"]:
    """The sum of one vector for each of the first ``lanes`` of ``owned`` lanes, which are dealt to the processes.

    Args:
        nodes: what is known of this process's lanes (:func:`insert`).
        lanes: how many take part, at least 1; the others have no images.
        owned: how many are dealt.
        empty: a vector of the same length, type and device, for a process without lanes.
        group: the processes.
    """
    whole: Span = (0, lanes)
    spans = [cover(whole, group.deal(owned, rank)) for rank in range(group.size)]
    own = [add_up(span, nodes) for span in spans[group.rank]]
    if group.size == 1:
        return own[0]
    length = len(empty)
    stacked = torch.stack(own) if own else empty.new_zeros(0, length)
    received = group.exchange(stacked, [len(each) for each in spans])
    parts = dict(zip([span for each in spans for span in each], received, strict=True))
    return group.collect(add_up(whole, parts), length)


@dataclass(frozen=True, eq=False)
class Sums:
    """What the lanes of a step, or of several, add up to, besides what the model has taken.

    Attributes:
        loss: the mean over the images.
        correct: right answers; ``None`` where answers are not right or wrong.
        interrupts: how many processes were interrupted (:meth:`Group.interrupt`); ``None`` if there is one lane only.
    """

    loss: Float[Tensor, ""]
    correct: Float[Tensor, ""] | None
    interrupts: Float[Tensor, ""] | None = None


class OneLane:
    """The sums of a step whose batch is not divided: what its one lane gave."""

    def begin(self, _: DividedBatch) -> None:
        """Begin a step."""

    def add(self, _: Batch, loss: Float[Tensor, ""], correct: Float[Tensor, ""] | None) -> None:
        """Take the loss and the right answers; the gradients stay where backward left them."""
        self._given = loss, correct

    def finish(self) -> Sums:
        """What the lane gave."""
        return Sums(*self._given)


class LaneSums:
    """The sums of a step over its lanes: gradients, statistics of the norms, loss and right answers.

    The loss of a batch is the mean over its images, so what a lane gives is weighted by its share of them. A running
    statistic becomes the mean of what the lanes would have made of it.
    """

    def __init__(self, model: Model, lanes: int, group: Group) -> None:
        self._model, self._lanes, self._group = model, lanes, group
        norms = [module for module in model.modules() if isinstance(module, _NormBase)]
        found = [(norm.running_mean, norm.running_var) for norm in norms]
        self._statistics = [statistic for pair in found for statistic in pair if statistic is not None]
        self._counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]

    def begin(self, divided: DividedBatch) -> None:
        """Begin a step."""
        self._divided = divided
        self._weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._before = [buffer.clone() for buffer in (*self._statistics, *self._counts)]
        self._nodes: dict[Span, Tensor] = {}

    @torch.no_grad()
    def add(self, batch: Batch, loss: Float[Tensor, ""], correct: Float[Tensor, ""] | None) -> None:
        """Take what a lane gave, and put the model back to where the step began."""
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self._weights]
        share = 1.0 if batch.share is None else batch.share
        # Their changes: those of a norm in eval mode are exactly 0 and add up to 0.
        changes = [share * (now - before) for now, before in zip(self._statistics, self._before, strict=False)]
        # A norm in eval mode counts nothing.
        counts = [count - before for count, before in zip(self._counts, self._before[len(changes) :], strict=True)]
        answers = loss.new_zeros(()) if correct is None else correct
        interrupts = loss.new_tensor(float(not self._nodes and self._group.take_interrupt()))
        parts = [*gradients, *changes, *counts, share * loss.detach(), answers, interrupts]
        vector = torch.cat([part.reshape(-1).to(loss.dtype) for part in parts])
        insert(self._nodes, batch.lane, vector, self._divided.lanes)
        for weight in self._weights:
            weight.grad = None
        for buffer, before in zip((*self._statistics, *self._counts), self._before, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def finish(self) -> Sums:
        """Give the model the gradients and statistics of all lanes."""
        tensors = [*self._weights, *self._statistics, *self._counts]
        lengths = [*(tensor.numel() for tensor in tensors), 1, 1, 1]
        empty = torch.zeros(sum(lengths), device=self._model.device)
        total = sum_lanes(self._nodes, self._divided.lanes, self._lanes, empty, self._group)
        *sums, loss, correct, interrupts = total.split(lengths)
        for tensor, part in zip(tensors, sums, strict=True):
            if tensor.requires_grad:
                # In the memory layout of its weight, which fused optimizers expect.
                tensor.grad = torch.empty_like(tensor).copy_(part.view_as(tensor))
            elif tensor.is_floating_point():
                tensor += part.view_as(tensor)
            else:
                tensor += (part.view_as(tensor) > 0).to(tensor.dtype)
        is_counted = self._model.task.kind is not REGRESSION
        return Sums(loss[0], correct[0] if is_counted else None, interrupts[0])


def build_sums(model: Model, recipe: Recipe, group: Group) -> OneLane | LaneSums:
    """What adds up the lanes of the recipe's batches over the processes of a group."""
    return OneLane() if recipe.lanes == 1 else LaneSums(model, recipe.lanes, group)


def check_lanes(recipe: Recipe, images: int, group: Group) -> None:
    """Raise ``RecipeError`` unless the recipe's lanes suit so many training images and the group."""
    lanes, every = recipe.lanes, recipe.sync_every
    if group.size > lanes:
        raise RecipeError(
            f"{group.size} processes train together, but lanes was {lanes}: each needs a lane of the batch. "
            f"Set lanes to {group.size} or more, such as {1 << (group.size - 1).bit_length()}."
        )
    if every > 1 and lanes == 1:
        raise RecipeError(
            f"sync_every was {every}, but lanes was 1: the weights of several lanes are averaged. Set lanes to the "
            "number of processes or more, or leave sync_every at 1."
        )
    if every > 1 and (size := min(recipe.batch_size, images)) < LEAST_IN_LANE * lanes:
        raise RecipeError(
            f"sync_every was {every}, which needs {LEAST_IN_LANE} images for each of {lanes} lanes in a batch, but a "
            f"batch has {size}. Set lanes to {max(2, size // LEAST_IN_LANE)} or fewer, or sync_every to 1."
        )
