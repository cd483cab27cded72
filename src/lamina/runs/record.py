"""``run.json``: the net, the recipe, the data, the software and the machine of a training."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina import __version__
from lamina.data import Preparation
from lamina.errors import RunError, escape
from lamina.files import damaged
from lamina.nets import Net, Shape
from lamina.targets import Score
from lamina.training.device import Choice
from lamina.training.precision import Precision
from lamina.training.pretrained import TimmNet, import_timm
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.values import fields_to_json, from_json_values

FORMAT = 4  # version of the format of a run folder, to be increased when it changes
COMPUTING_FLAGS = ("amx", "avx", "f16c", "fma", "sse", "asimd", "bf16", "fphp", "i8mm", "sve")
"""Prefixes of those processor flags on which the last bits of a sum may depend."""


@dataclass(frozen=True)
class OwnModule:
    """Where a module, or a net with one's own layers, comes from: lamina never runs a file because a run names it."""

    file: str  # empty for what was given in Python
    name: str  # of the function, class or net in that file; without one, of the class, or the net's repr

    def __str__(self) -> str:
        """How to give it again."""
        if not self.file:
            return f"load_run(path, module={self.name if self.name.endswith(')') else f'{self.name}(…)'})"
        return "--net " + shlex.quote(f"{self.file}:{self.name}" if self.name else self.file)


@dataclass(frozen=True)
class DataOrigin:
    """What a model was trained on; ``source`` is its name or absolute path, and empty for arrays in memory."""

    source: str
    name: str
    fingerprint: str
    preparation: Preparation


@dataclass(frozen=True)
class Machine:
    """The hardware of a training."""

    processor: str
    instructions: str  # the widest vector instructions that torch uses, such as AVX512
    flags: str  # of the processor, on which its sums depend; empty where the system does not list them
    cores: int  # logical ones
    threads: int  # that torch computes with
    platform: str


@dataclass(frozen=True)
class Considered:
    """A candidate that lamina considered when it chose the net."""

    net_name: str
    side_px: int
    epochs: int
    seconds: float  # of that training, estimated or measured, with evaluations
    verdict: str  # whether it was chosen, and if not, why
    score: Score | None = None  # on ``val``, if it was trained


@dataclass(frozen=True, kw_only=True, repr=False)
class RunRecord:
    """What ``run.json`` holds."""

    net_name: str  # in tables and in the run's name
    net: Net | None  # ``None`` for a module, or if layers are not lamina's
    own_module: OwnModule | None  # for a module, or a net with layers, of one's own
    timm: TimmNet | None  # ``None`` for other nets
    recipe: Recipe
    task: Task
    in_shape: Shape  # channels, height and width of an image
    mean: tuple[float, ...]  # of each channel, in pixel values 0 to 255
    std: tuple[float, ...]  # the same
    parameters: int
    data: DataOrigin
    device: Choice
    precision: Precision
    rewind_on_nan: bool  # whether it returns to its last checkpoint on NaN or infinity instead of ending
    command: tuple[str, ...]  # the words of the command line; empty in Python
    created: str  # by ISO 8601 in UTC
    versions: dict[str, str]  # of lamina, Python, torch and NumPy, and of timm where the net is timm's
    machine: Machine
    considered: tuple[Considered, ...] = ()  # empty where the net was named
    parts: dict[str, str] = field(default_factory=dict)  # one's own functions: what for → module and name

    def __repr__(self) -> str:
        return escape(f"RunRecord({self.net_name} on {self.data.name}, {self.recipe}, {self.created})")


def resume_command(path: Path, record: RunRecord) -> str:
    """What to type to resume a run, with the file of its own module."""
    own = record.own_module
    return f"lamina resume {shlex.quote(str(path))}" + (f" {own}" if own is not None and own.file else "")


def find_versions(*, with_timm: bool) -> dict[str, str]:
    """The versions of the software that computes."""
    versions = {
        "lamina": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return versions | {"timm": str(import_timm().__version__)} if with_timm else versions


def describe_machine() -> Machine:
    """The hardware of this process."""
    fields: dict[str, str] = {}
    # On Linux, Python's platform.processor() gives the architecture alone.
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return Machine(
        processor=fields.get("model name") or platform.processor() or platform.machine(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        flags=" ".join(sorted(flag for flag in flags if flag.startswith(COMPUTING_FLAGS))),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        platform=platform.platform(),
    )


def record_to_json(record: RunRecord) -> dict[str, Any]:
    """What ``run.json`` holds, as JSON values."""
    return {"format": FORMAT, **fields_to_json(record)}


def parse_record(values: dict[str, Any], file: str) -> RunRecord:
    """The record that :func:`record_to_json` wrote; a ``RunError`` that names ``file`` if it is damaged."""
    written = values.pop("format", None)
    if type(written) is not int:
        raise damaged(file, f"its format should be an integer, but is {written!r}")
    if written != FORMAT:
        raise RunError(
            f"{file} has format {written}, but lamina {__version__} reads format {FORMAT}. "
            "Use the lamina that wrote it, or train again."
        )
    try:
        record = from_json_values(RunRecord, values, "run")
    except ValueError as error:
        raise damaged(file, error) from error
    if sum(net is not None for net in (record.net, record.own_module, record.timm)) != 1:
        raise damaged(file, "exactly one of net, own_module and timm should say which net")
    if len(record.in_shape) != 3:
        raise damaged(file, "in_shape should be channels, height and width")
    if not len(record.mean) == len(record.std) == record.in_shape[0]:
        raise damaged(file, "mean and std should have a value for each channel")
    return record
