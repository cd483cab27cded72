"""Time each layer of a net on this machine while the net is edited."""

from __future__ import annotations

import math
import time

import torch

from lamina.errors import NetError
from lamina.nets import Net, Shape, parse_net
from lamina.nets.costs import summarize_layers

TIMED_IMAGES = 64
TURNS = 3
# Limits of a net that is edited: a gigabyte, and some seconds.
MOST_VALUES = 10**8
MOST_MULTIPLY_ADDS = 64 * 10**8


def count_affordable(net: Net, shape: Shape, images: int) -> int:
    """The number of images of ``shape``, up to ``images``, that an edited net can be tried on.

    ``NetError`` if it is too large.
    """
    summary = summarize_layers(net.layers, shape)
    values = (
        summary.parameters
        + 2 * math.prod(shape)
        + sum(math.prod(row.out_shape) for row in summary.rows)
    )
    affordable = min(
        images, MOST_MULTIPLY_ADDS // max(1, summary.multiply_adds), MOST_VALUES // values
    )
    if not affordable:
        raise NetError("The net is too large to be tried while it is edited.")
    return affordable


def time_layers(layers: str, shape: Shape, outputs: int) -> list[float]:
    """Time in ms of each layer for 64 images, forward and backward, on one core, after a warmup.

    Large nets get fewer images, and their times are scaled.
    """
    net = parse_net(layers).check(shape, outputs)
    images = count_affordable(net, shape, TIMED_IMAGES)
    x = torch.randn(images, *shape).contiguous(memory_format=torch.channels_last)
    durations_ms = []
    for module in net.module(shape):
        times = []
        for _ in range(TURNS + 1):
            inputs = x.detach().requires_grad_()
            began = time.perf_counter()
            y = module(inputs)
            y.backward(torch.ones_like(y))
            times.append(time.perf_counter() - began)
        durations_ms.append(round(1000 * min(times[1:]) * TIMED_IMAGES / images, 3))
        x = y.detach()
    return durations_ms
