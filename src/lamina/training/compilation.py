"""A net compiled by torch: what lies between its convolutions becomes one pass over memory."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.device import Choice
from lamina.training.model import Model

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""From stored pictures to logits."""

COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
"""What torch calls where the environment variable CXX names no other."""


@dataclass(frozen=True)
class Compilation(Choice):
    """Whether the net is compiled, and the reason."""

    value: Literal["off", "on"]


SHORTEST_SECONDS = 120.0
"""Of a training that may repay 10 to 30 seconds of compiling: it is seldom a sixth faster, and as often slower."""
TURNS = 3
SMALLEST_GAIN = 1.1
"""In the time of forward and backward passes, so that the clock of a busy machine seldom tells another choice."""


def choose_compilation(
    wanted: Literal["auto", "off", "on"],
    model: Model,
    try_step: Callable[[Forward], object],
    *,
    steps: int,
    is_growing: bool = False,
) -> tuple[Forward, Compilation]:
    """The forward pass to train with, compiled or as it is, and why.

    ``auto`` compiles where the training is long enough, times steps of either kind, and takes the compiled form where
    it is clearly faster.

    Args:
        wanted: what the recipe says.
        model: what is trained.
        try_step: makes a forward and a backward pass by what it is given, of which nothing stays.
        steps: how many like that one the training has.
        is_growing: whether pictures grow: each of their sizes would be compiled, and torch compiles only eight shapes.

    Raises:
        RecipeError: ``on``, and pictures grow, or there is no C++ compiler, which torch compiles with on a CPU.
    """
    if wanted == "off":
        return model, Compilation("off", "as asked")
    if is_growing:
        if wanted == "auto":
            return model, Compilation("off", "pictures that grow would be compiled at each size")
        raise RecipeError(
            "compile was 'on', but grow_from_fraction shows pictures of many sizes, each of which would be compiled. "
            "Set compile to 'off', or grow_from_fraction to 0."
        )
    if wanted == "on":
        return compile_model(model), Compilation("on", "as asked")
    device = _device_of(model)
    if device == "mps":
        return model, Compilation("off", "compiling is not tried on mps")
    seconds = _time_step(try_step, model)
    if seconds * steps < SHORTEST_SECONDS:
        return model, Compilation("off", f"a training of {seconds * steps:.0f} s is too short to repay compiling")
    if misses_compiler(device):
        return model, Compilation("off", f"there is no C++ compiler: {_name_compiler()} is not on the PATH")
    compiled = compile_model(model)
    try:
        gain = seconds / _time_step(try_step, compiled)
    except RuntimeError as error:  # torch's word for a compiler that fails, whatever the reason
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return model, Compilation("off", f"compiling failed: {reason}")
    told = f"compiled, forward and backward run at {gain:.2f}× the speed"
    return (compiled, Compilation("on", told)) if gain >= SMALLEST_GAIN else (model, Compilation("off", told))


def _time_step(try_step: Callable[[Forward], object], forward: Forward) -> float:
    """Seconds of the best of some steps, after one that compiles or warms up."""
    turns = []
    for _ in range(1 + TURNS):
        started = time.perf_counter()
        try_step(forward)
        turns.append(time.perf_counter() - started)
    return min(turns[1:])


def compile_model(model: Model) -> Forward:
    """The model's forward pass, compiled when it is first called, and once more for a smaller last batch.

    Raises:
        RecipeError: the model is on a CPU and there is no C++ compiler, which torch compiles with there.
    """
    if misses_compiler(_device_of(model)):
        raise RecipeError(
            f"compile was 'on', which takes a C++ compiler, but {_name_compiler()} is not on the PATH. "
            "Install it (Debian and Ubuntu: apt install g++), or leave compile off."
        )
    # One kernel for each size of a batch: a general one could round otherwise, by what came first.
    compiled: Forward = torch.compile(model, dynamic=False)
    return compiled


def misses_compiler(device: str) -> bool:
    """Whether torch compiles by a C++ compiler on such a device, and there is none."""
    return device == "cpu" and shutil.which(_name_compiler()) is None


def _name_compiler() -> str:
    return os.environ.get("CXX") or COMPILER


def _device_of(model: Model) -> str:
    return next(model.parameters()).device.type
