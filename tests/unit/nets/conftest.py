"""What torch counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lamina.nets import Shape


def count(module: nn.Module, shape: Shape) -> int:
    """The multiply-adds of one image, of which torch counts two operations each."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


@pytest.fixture(scope="session")
def count_multiply_adds() -> Callable[[nn.Module, Shape], int]:
    """The function that counts, with what it loads at its first use."""
    count(nn.Linear(1, 1), (1,))
    return count
