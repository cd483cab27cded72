"""A net compiled by torch: what lies between its convolutions becomes one pass over memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.model import Model

COMPILERS = ("g++", "clang++", "c++", "cl")


def compile_model(model: Model) -> Callable[[Tensor], Tensor]:
    """The model's forward pass, compiled when it is first called, and once more for a smaller last batch.

    Raises:
        RecipeError: the model is on a CPU and there is no C++ compiler, which torch compiles with there.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if on_cpu and compiler is None:
        raise RecipeError(
            f"compile was 'on', which takes a C++ compiler, but none of {', '.join(COMPILERS)} is on the PATH. "
            "Install one (Debian and Ubuntu: apt install g++), or leave compile off."
        )
    compiled: Callable[[Tensor], Tensor] = torch.compile(model)
    return compiled
