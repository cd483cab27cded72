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

    def lanes(self, block: Sequence[DividedBatch]) -> Iterator[list[Batch]]:
        """The batches of each of this process's lanes; each lane begins where the block began.

        The caller takes a lane's steps, and gives their losses to :meth:`add`, before it asks for the next lane.
        """
        self._images = sum(divided.images for divided in block)
        self._before = {name: tensor.clone() for name, tensor in self._tensors().items()}
        self._nodes: dict[Span, Tensor] = {}
        self._problem = ""
        for lane in self._group.deal(self._lanes):
            batches = [batch for divided in block for batch in divided.own if batch.lane == lane]
            self._losses: list[Tensor] = []
            self._correct: list[Tensor] = []
            yield batches
            self._end_lane(lane, sum(len(batch.indices) for batch in batches))

    def add(self, batch: Batch, loss: Float[Tensor, ""], correct: Float[Tensor, ""] | None) -> None:
        """Take the loss and the right answers of a step."""
        self._losses.append(loss.detach() * len(batch.indices))
        self._correct.append(loss.new_zeros(()) if correct is None else correct.to(loss.dtype))

    def fail(self, problem: str) -> None:
        """Take what made the present lane's loss or gradients not finite; its steps have ended."""
        self._problem = self._problem or problem
        self._losses.append(torch.full((), math.nan, device=self._model.device))
        self._correct.append(torch.zeros((), device=self._model.device))

    @torch.no_grad()
    def _end_lane(self, lane: int, images: int) -> None:
        share, tensors = images / self._images, self._tensors()
        interrupts = float(not self._nodes and self._group.take_interrupt())
        sums = torch.stack([sum(self._losses), sum(self._correct), self._losses[0].new_tensor(interrupts)])  # type: ignore[list-item]
        changes = [share * (now - self._before[name] if name in self._before else now) for name, now in tensors.items()]
        vector = torch.cat([change.reshape(-1).to(sums.dtype) for change in (*changes, sums)])
        insert(self._nodes, lane, vector, self._lanes)
        self._length = len(vector)
        for name, tensor in tensors.items():
            if name in self._before:
                tensor.copy_(self._before[name])
            else:
                tensor.zero_()  # where an optimizer begins

    @torch.no_grad()
    def finish(self) -> tuple[Sums, str]:
        """Give the model and the optimizer the mean of all lanes.

        Also what made a loss or a gradient not finite in a lane of any process; then they are as the block began.
        """
        tensors = self._tensors()
        empty = torch.zeros(self._length, device=self._model.device)
        total = sum_lanes(self._nodes, self._lanes, self._lanes, empty, self._group)
        *changes, loss, correct, interrupts = total.split([*(tensor.numel() for tensor in tensors.values()), 1, 1, 1])
        sums = Sums(loss[0] / self._images, None if self._model.task.kind is REGRESSION else correct[0], interrupts[0])
        if not math.isfinite(loss):
            problems = self._group.gather(self._problem.encode())
            return sums, next(text.decode() for text in problems if text)
        for (name, tensor), change in zip(tensors.items(), changes, strict=True):
            is_count = not tensor.is_floating_point() or name.startswith(STEP_COUNT)
            tensor += (change.round() if is_count else change).view_as(tensor).to(tensor.dtype)
        return sums, ""

    def _tensors(self) -> dict[str, Tensor]:
        return name_tensors({"live": self._model}, self._optimizer)
