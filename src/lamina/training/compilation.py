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
SMALLEST_GAIN = 1.03
"""In the time of a step; less is within what a clock tells."""


def choose_compilation(
    wanted: Literal["auto", "off", "on"],
    model: Model,
    try_step: Callable[[Forward], object],
    *,
    steps: float,
    forms: int = 1,
) -> tuple[Forward, Compilation]:
    """The forward pass to train with, compiled or as it is, and why.

    ``auto`` compiles where the training is long enough, times steps of either kind, and takes the compiled form where
    it is faster and the other shapes of a batch will not cost more than that saves.

    Args:
        wanted: what the recipe says.
        model: what is trained.
        try_step: makes a forward and a backward pass by what it is given, of which nothing stays.
        steps: how many like that one the training has.
        forms: shapes of a batch, each of which is compiled for itself.

    Raises:
        RecipeError: ``on``, and there is no C++ compiler, which torch compiles with on a CPU.
    """
    if wanted == "off":
        return model, Compilation("off", "as asked")
    if wanted == "on":
        return compile_model(model), Compilation("on", "as asked")
    _, seconds = _time_steps(try_step, model)
    if seconds * steps < SHORTEST_SECONDS:
        return model, Compilation("off", f"a training of {seconds * steps:.0f} s is too short to repay compiling")
    if _misses_compiler(model):
        return model, Compilation("off", f"there is no C++ compiler: {_name_compiler()} is not on the PATH")
    compiled = compile_model(model)
    compile_seconds, compiled_seconds = _time_steps(try_step, compiled)
    gain = seconds / compiled_seconds
    told = f"compiled, a step runs at {gain:.2f}× the speed"
    if gain < SMALLEST_GAIN:
        return model, Compilation("off", told)
    if (seconds - compiled_seconds) * steps < compile_seconds * (forms - 1):
        return model, Compilation("off", f"{told}, which does not repay compiling {forms} shapes of a batch")
    return compiled, Compilation("on", told)


def _time_steps(try_step: Callable[[Forward], object], forward: Forward) -> tuple[float, float]:
    """Seconds of a first step, which compiles or warms up, and of the best of some more."""
    turns = []
    for _ in range(1 + TURNS):
        started = time.perf_counter()
        try_step(forward)
        turns.append(time.perf_counter() - started)
    return turns[0], min(turns[1:])


def compile_model(model: Model) -> Forward:
    """The model's forward pass, compiled when it is first called, and once more for a smaller last batch.

    Raises:
        RecipeError: the model is on a CPU and there is no C++ compiler, which torch compiles with there.
    """
    if _misses_compiler(model):
        raise RecipeError(
            f"compile was 'on', which takes a C++ compiler, but {_name_compiler()} is not on the PATH. "
            "Install it (Debian and Ubuntu: apt install g++), or leave compile off."
        )
    # One kernel for each size of a batch: a general one could round otherwise, by what came first.
    compiled: Forward = torch.compile(model, dynamic=False)
    return compiled


def _name_compiler() -> str:
    return os.environ.get("CXX") or COMPILER


def _misses_compiler(model: Model) -> bool:
    on_cpu = next(model.parameters()).device.type == "cpu"
    return on_cpu and shutil.which(_name_compiler()) is None
