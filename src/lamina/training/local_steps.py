"""Local SGD: each lane takes several steps by itself, and then all go on from the mean of their weights.

Processes then exchange weights once in ``sync_every`` steps, which suits slow networks; the result is another one than
that of gradients added in every step (Stich, "Local SGD Converges Fast and Communicates Little", arXiv 1805.09767,
algorithm 1). The optimizer's state is averaged like the weights, so that between two blocks of steps a training has one
state, whatever the number of lanes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from lamina.targets import REGRESSION
from lamina.training.batches import Batch, DividedBatch
from lamina.training.checkpoint import name_tensors
from lamina.training.group import Group
from lamina.training.lanes import Span, Sums, insert, sum_lanes
from lamina.training.model import Model

STEP_COUNT = "optimizer.step."


class LocalSteps:
    """A block of steps that each lane takes by itself, and the mean over the lanes of what they lead to.

    A lane counts by its share of the block's images. What is averaged are changes since the block began, so that what
    no lane changes stays as it is to the bit.
    """

    def __init__(self, model: Model, optimizer: Optimizer, lanes: int, group: Group) -> None:
        self._model, self._optimizer, self._group, self._lanes = model, optimizer, group, lanes

    def each_lane(self, block: Sequence[DividedBatch]) -> Iterator[Iterator[Batch]]:
        """The batches of each of this process's lanes; each lane begins where the block began.

        The caller takes a lane's steps, and gives their losses to :meth:`add`, before it asks for the next lane.
        """
        self._block, self._images = block, sum(divided.images for divided in block)
        self._before = {name: tensor.clone() for name, tensor in self._tensors().items()}
        self._nodes: dict[Span, Tensor] = {}
        self._problem = ""
        for lane in self._group.deal(self._lanes):
            self._seen, self._loss, self._correct = 0, torch.zeros(()), torch.zeros(())
            yield (divided.gather(lane) for divided in block if lane in divided.own_lanes)
            if self._problem:
                break
            self._take(lane)
            self._go_back()

    def add(self, batch: Batch, loss: Float[Tensor, ""], correct: Float[Tensor, ""] | None) -> None:
        """Take the loss and the right answers of a step."""
        self._seen += len(batch.indices)
        self._loss = self._loss.to(loss) + loss.detach() * len(batch.indices)
        if correct is not None:
            self._correct = self._correct.to(loss) + correct

    def fail(self, problem: str) -> None:
        """Take what made a loss or a gradient not finite; no lane goes on."""
        self._problem = problem

    @torch.no_grad()
    def _take(self, lane: int) -> None:
        share = self._seen / self._images
        interrupts = float(not self._nodes and self._group.take_interrupt())
        changes = [
            share * (now - self._before[name] if name in self._before else now) for name, now in self._tensors().items()
        ]
        sums = self._loss.new_tensor([self._loss, self._correct, interrupts])
        vector = torch.cat([change.reshape(-1).to(sums.dtype) for change in (*changes, sums)])
        insert(self._nodes, lane, vector, self._lanes)

    @torch.no_grad()
    def _go_back(self) -> None:
        for name, tensor in self._tensors().items():
            if name in self._before:
                tensor.copy_(self._before[name])
            else:
                tensor.zero_()  # where an optimizer begins

    @torch.no_grad()
    def finish(self) -> tuple[Sums, str]:
        """Give the model and the optimizer the mean of all lanes.

        Also what made a loss or a gradient not finite in any process, if anything; then they are as the block began.
        """
        if self._group.any(bool(self._problem)):
            self._go_back()
            problems = self._group.gather(self._problem.encode())
            return Sums(self._loss, None), next(text.decode() for text in problems if text)
        tensors = self._tensors()
        lengths = [*(tensor.numel() for tensor in tensors.values()), 1, 1, 1]
        empty = torch.zeros(sum(lengths), device=self._model.device)
        total = sum_lanes(self._nodes, self._lanes, self._lanes, empty, self._group)
        *changes, loss, correct, interrupts = total.split(lengths)
        is_counted = self._model.task.kind is not REGRESSION
        sums = Sums(loss[0] / self._images, correct[0] if is_counted else None, interrupts[0])
        if not math.isfinite(loss):
            last = self._block[-1]
            return sums, (
                f"The losses of the lanes add up to infinity at step {last.step + 1} of epoch {last.epoch + 1}. What "
                "usually helps: a lower lr."
            )
        for (name, tensor), change in zip(tensors.items(), changes, strict=True):
            is_count = not tensor.is_floating_point() or name.startswith(STEP_COUNT)
            tensor += (change.round() if is_count else change).view_as(tensor).to(tensor.dtype)
        return sums, ""

    def _tensors(self) -> dict[str, Tensor]:
        return name_tensors({"live": self._model}, self._optimizer)
