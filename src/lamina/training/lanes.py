"""Sums over the lanes of a step, in an order that does not depend on the number of processes.

**Lanes** are micro-batches with a fixed place in the sum, a binary tree. On the same processor
type, with the same torch version, number of threads of a process and kernels, the weights are
therefore bit-identical for any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn.modules.batchnorm import _NormBase

from lamina.errors import RecipeError
from lamina.training import group
from lamina.training.batches import Batch, DividedBatch
from lamina.training.model import Model
from lamina.training.task import Scalar, Vector


@dataclass(frozen=True, eq=False)
class Block:
    """The sum of ``size`` lanes from ``start`` on; the size is a power of two that divides it."""

    start: int
    size: int
    sum: Vector


def append(blocks: list[Block], block: Block) -> None:
    """Append a block; two neighbors that are the halves of a larger block are added at once."""
    while blocks and blocks[-1].size == block.size and blocks[-1].start % (2 * block.size) == 0:
        left = blocks.pop()
        block = Block(left.start, 2 * left.size, left.sum + block.sum)
    blocks.append(block)


def add_up(parts: Iterable[Block]) -> Vector:
    """The sum of all lanes, from neighboring blocks in order."""
    blocks: list[Block] = []
    for part in parts:
        append(blocks, part)
    return reduce(lambda right, left: left + right, [block.sum for block in reversed(blocks)])


def list_blocks(lanes: range) -> list[Block]:
    """The blocks, without sums, into which successive lanes are added."""
    blocks: list[Block] = []
    nothing = torch.zeros(0)
    for lane in lanes:
        append(blocks, Block(lane, 1, nothing))
    return blocks


def sum_lanes(process_blocks: list[Block], lanes: int, dealt: int, empty: Vector) -> Vector:
    """Sum the first ``lanes`` of ``dealt``; a process without lanes has ``empty`` (zeros)."""
    processes = group.size()
    if processes == 1:
        return add_up(process_blocks)
    blocks: list[Block] = []
    counts = []
    for process in range(processes):
        lanes_of_process = group.deal(dealt, processes, process)
        blocks_of_process = list_blocks(lanes_of_process[: max(0, lanes - lanes_of_process.start)])
        blocks += blocks_of_process
        counts.append(len(blocks_of_process))
    stacked = empty.new_zeros(0, len(empty))
    if process_blocks:
        stacked = torch.stack([block.sum for block in process_blocks])
    received = group.exchange(stacked, counts)
    parts = [
        Block(block.start, block.size, part) for block, part in zip(blocks, received, strict=True)
    ]
    return group.collect(add_up(parts), len(empty))


class LaneSums:
    """The sums over a step's lanes of gradients, batch-norm statistics, loss and predictions.

    Each lane counts by its share of the images.
    """

    def __init__(self, model: Model, step: DividedBatch, lanes: int) -> None:
        norms = [layer for layer in model.modules() if isinstance(layer, _NormBase)]
        buffers = [
            buffer
            for norm in norms
            for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        ]
        self._model = model
        self._step = step
        self._lanes = lanes
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._buffers = [buffer for buffer in buffers if buffer is not None]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._blocks: list[Block] = []

    @torch.no_grad()
    def add(self, batch: Batch, loss: Scalar, correct: Scalar) -> None:
        """Add a lane's gradients, statistics and loss, and restore the model's earlier state."""
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad
            for weight in self._weights
        ]
        is_used = [float(weight.grad is not None) for weight in self._weights]
        changes = [
            batch.share * (buffer - before)
            for buffer, before in zip(self._buffers, self._before, strict=True)
        ]
        parts = [
            *gradients,
            *changes,
            loss.new_tensor(is_used),
            batch.share * loss,
            correct,
            loss.new_tensor(float(group.take_interrupt())),
        ]
        vector = torch.cat([part.reshape(-1).to(loss.dtype) for part in parts])
        append(self._blocks, Block(batch.lane, 1, vector))
        for weight in self._weights:
            weight.grad = None
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def finish(self) -> tuple[Scalar, Scalar, Scalar]:
        """Write the sums to the model; the mean loss, correct predictions, interrupted processes.

        The number of correct predictions is NaN where they are not counted.
        """
        scalar = torch.zeros((), device=self._model.device)
        is_used = scalar.expand(len(self._weights))
        parts = [*self._weights, *self._buffers, is_used, scalar, scalar, scalar]  # as in add
        lengths = [part.numel() for part in parts]
        empty = scalar.new_zeros(sum(lengths))
        total = sum_lanes(self._blocks, self._step.lanes, self._lanes, empty)
        pieces = zip(total.split(lengths), parts, strict=True)
        *sums, uses, loss, correct, interrupts = (piece.view(part.shape) for piece, part in pieces)
        # A weight that no lane used gets no gradient, because an optimizer would decay it for a
        # gradient of zeros.
        for weight, gradient, count in zip(self._weights, sums, uses.tolist(), strict=False):
            if count:
                # Fused optimizers expect the memory layout of the weight.
                weight.grad = torch.empty_like(weight).copy_(gradient)
        for buffer, change in zip(self._buffers, sums[len(self._weights) :], strict=True):
            buffer += change if buffer.is_floating_point() else change.round().to(buffer.dtype)
        return loss, correct, interrupts


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
