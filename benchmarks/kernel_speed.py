"""The C functions of ``lamina.kernels`` and torch's layers: single layers and training steps.

Layers: batch norm and LeakyReLU of the article's CNN at batch 100, and the max pools, batch norms
and ReLUs of cnn-s at batch 500, forward and backward. Steps: nets with kernels on and off. Both
take turns, so a slow minute affects both. Results are medians over the turns.

    python benchmarks/kernel_speed.py --json kernel_speed.json
"""

from __future__ import annotations

import dataclasses
import json as json_format
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
import tyro
from processes import read_entry
from rich.console import Console
from rich.table import Table
from torch import nn

from lamina import Epoch, Images, Recipe, Step, Training, load_data, load_net
from lamina.errors import LaminaError
from lamina.kernels.library import VARIABLE, Kernels, find_kernels
from lamina.kernels.norm_act import NormAct
from lamina.runs.record import describe_machine
from lamina.training.device import Choice, keep_freed_memory

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
LAYERS = {
    "cnn 32×32×32": (100, 32, 32, 32),
    "cnn 32×16×16": (100, 32, 16, 16),
    "cnn 64×16×16": (100, 64, 16, 16),
    "cnn 64×8×8": (100, 64, 8, 8),
    "cnn-s 32×31×31, pool": (500, 32, 31, 31),
    "cnn-s 64×15×15, pool": (500, 64, 15, 15),
    "cnn-s 64×7×7, pool": (500, 64, 7, 7),
}
CALLS, STEPS = 10, 5


@dataclasses.dataclass(frozen=True)
class Row:
    """Medians over the turns, in seconds per call or step."""

    name: str
    precision: str
    torch_seconds: float
    kernel_seconds: float

    @property
    def ratio(self) -> float:
        return self.torch_seconds / self.kernel_seconds


def time_layers(
    shape: tuple[int, ...], dtype: torch.dtype, kernels: Kernels
) -> tuple[Callable[[], float], ...]:
    """Functions that time a forward and backward pass, with torch's layers and with the kernel."""
    pools = shape[0] == 500
    layers = [nn.BatchNorm2d(shape[1]), nn.ReLU() if pools else nn.LeakyReLU()]
    layers = [nn.MaxPool2d(2), *layers] if pools else layers
    x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn(layers[0](x).shape if pools else shape).to(dtype)
    gradient = gradient.contiguous(memory_format=torch.channels_last)

    def measure(module: nn.Module) -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            torch.autograd.grad(module(x), [x, *module.parameters()], gradient)
        return (time.perf_counter() - started) / CALLS

    return (lambda: measure(nn.Sequential(*layers)), lambda: measure(NormAct(layers, kernels)))


def time_steps(
    net: str, images: Images, recipe: Recipe, precision: str
) -> tuple[Callable[[], float], ...]:
    """Functions that return the seconds of a training step without and with kernels."""
    # so that each event comes after STEPS steps
    some = images.take_evenly(8 * STEPS * recipe.batch_size)
    chosen = Choice(precision, "as requested")

    def begin(level: str) -> Callable[[], float]:
        before = os.environ.get(VARIABLE, "auto")
        os.environ[VARIABLE] = level or before
        events = iter(
            Training(load_net(net), some, recipe, precision=chosen, steps_per_record=STEPS)
        )
        os.environ[VARIABLE] = before
        return lambda: measure(events)

    def measure(events: Iterator[Step | Epoch]) -> float:
        started = time.perf_counter()
        next(events)
        return (time.perf_counter() - started) / STEPS

    return begin("off"), begin("")


def take_turns(
    name: str, precision: str, sides: tuple[Callable[[], float], ...], turns: int
) -> Row:
    # the first turn is warm-up
    seconds = [[side() for side in sides] for _ in range(turns + 1)][1:]
    return Row(name, precision, *(statistics.median(side) for side in zip(*seconds, strict=True)))


def main(
    nets: str = "cnn,mlp,cnn-s",
    precisions: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32"),
    turns: int = 5,
    json: Path | None = None,
) -> None:
    """Measure layers and training steps with kernels and with torch's layers.

    Args:
        nets: nets of the zoo, separated by commas; NET:RECIPE selects a recipe.
        precisions: number formats.
        turns: number of measurements of each side.
        json: file for the results, one JSON object per line.
    """
    kernels = find_kernels()
    if not isinstance(kernels, Kernels):
        raise LaminaError(
            f"The kernels are {kernels}. Build them with make install, on a processor with AVX2."
        )
    keep_freed_memory()
    machine = describe_machine()
    print(f"{machine.processor}, {machine.threads} threads, kernels {kernels}")
    rows = [
        take_turns(name, precision, time_layers(shape, DTYPES[precision], kernels), turns)
        for precision in precisions
        for name, shape in LAYERS.items()
        if kernels.norm_act_forward
    ]
    images = load_data("cifar10").train
    for net in nets.split(","):
        net_name, recipe = read_entry(net)
        recipe = dataclasses.replace(recipe, epochs=100, device="cpu")
        rows += [
            take_turns(
                f"step of {net}", precision, time_steps(net_name, images, recipe, precision), turns
            )
            for precision in precisions
        ]
    table = Table("layers or step", "precision", "torch ms", "kernels ms", "ratio")
    for row in rows:
        times = (f"{1e3 * seconds:.2f}" for seconds in (row.torch_seconds, row.kernel_seconds))
        table.add_row(row.name, row.precision, *times, f"{row.ratio:.2f}")
    Console().print(table)
    if json is not None:
        about = {
            "processor": machine.processor,
            "threads": machine.threads,
            "kernels": str(kernels),
        }
        lines = ({**about, **dataclasses.asdict(row), "ratio": row.ratio} for row in rows)
        json.write_text("".join(json_format.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
