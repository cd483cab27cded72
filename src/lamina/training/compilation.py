"""A net compiled by torch: what lies between its convolutions becomes one pass over memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.model import Model

COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
"""What torch calls where the environment variable CXX names no other."""


def compile_model(model: Model) -> Callable[[Tensor], Tensor]:
    """The model's forward pass, compiled when it is first called, and once more for a smaller last batch.

    Raises:
        RecipeError: the model is on a CPU and there is no C++ compiler, which torch compiles with there.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    compiler = os.environ.get("CXX") or COMPILER
    if on_cpu and shutil.which(compiler) is None:
        raise RecipeError(
            f"compile was 'on', which takes a C++ compiler, but {compiler} is not on the PATH. "
            "Install it (Debian and Ubuntu: apt install g++), or leave compile off."
        )
    # One kernel for each size of a batch: a general one could round otherwise, by what came first.
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return compiled
