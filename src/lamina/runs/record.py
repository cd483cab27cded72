"""``run.json``: net, recipe, data, software and machine of a training run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from lamina import __version__
from lamina.data import Preparation
from lamina.errors import NetError, RunError, escape, name_some
from lamina.files import blaming
from lamina.kernels.library import find_kernels
from lamina.nets import Net, Shape, parse_net
from lamina.training.device import Choice
from lamina.training.pretrained import TimmNet, import_timm
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.values import Range, fields_to_json, from_json_values

FORMAT = 10  # version of the run folder; increase it with every change of the format
COMPUTING_FLAGS = ("amx", "avx", "f16c", "fma", "sse", "asimd", "bf16", "fphp", "i8mm", "sve")
"""Prefixes of processor flags that may affect the last bits of a sum."""


@dataclass(frozen=True)
class OwnModule:
    """The source of your own module or layers; lamina never executes a file that a run names."""

    file: str  # empty if it was passed in Python
    # of the function, class or net in the file; in Python, of the class, or the repr of the net
    name: str
    digest: str = ""  # of the file or, in Python, of the source of the classes, at the start

    def __str__(self) -> str:
        """The argument or option that passes it again."""
        if self.file:
            return "--net " + shlex.quote(f"{self.file}:{self.name}".removesuffix(":"))
        call = self.name if self.name.endswith(")") else f"{self.name}(…)"
        return f"load_run(path, module={call})"


@dataclass(frozen=True)
class DataOrigin:
    """The data set of a run; ``source`` is its name or absolute path, empty for arrays."""

    source: str
    name: str
    fingerprint: str
    preparation: Preparation  # with the content of the files that it named


@dataclass(frozen=True)
class Machine:
    """The hardware of a training run."""

    processor: str
    instructions: str  # widest vector instructions that torch uses, such as AVX512
    flags: str  # of the processor, that may affect sums; empty if the system does not list them
    cores: int  # logical cores
    threads: Annotated[int, Range(1, 1024)]  # threads of torch
    platform: str


@dataclass(frozen=True)
class Considered:
    """A candidate that lamina considered when it chose the net."""

    net_name: str
    side_px: int
    epochs: int
    seconds: float  # of the training with evaluations, estimated or measured
    verdict: str  # chosen, or why not


@dataclass(frozen=True)
class StartedFrom:
    """The run that a new run started from, and which of its outputs were kept."""

    run: str  # absolute path
    kept: tuple[str, ...]  # the outputs for these kept their weights
    new: tuple[str, ...]  # the outputs for these are initialized

    def __str__(self) -> str:
        text = f"{self.run}; outputs kept: {name_some(self.kept) or 'none'}"
        return f"{text}; initialized: {name_some(self.new)}" if self.new else text


@dataclass(frozen=True, kw_only=True, repr=False)
class RunRecord:
    """The content of ``run.json``, which is written once."""

    net_name: str  # name in tables and in names of runs
    net: Net | None  # ``None`` for a module, or a net with custom layers
    own_module: OwnModule | None  # for a custom module, or a net with custom layers
    timm: TimmNet | None  # for a net from timm
    recipe: Recipe
    task: Task
    in_shape: Shape  # channels, height and width of an image
    mean: tuple[float, ...]  # per channel, in pixel values 0 to 255
    std: tuple[float, ...]  # per channel, in pixel values 0 to 255
    parameters: int
    data: DataOrigin
    device: Choice
    precision: Choice
    command: tuple[str, ...]  # words of the command line; empty in Python
    created: str  # ISO 8601, UTC
    # lamina, Python, torch, NumPy, instruction set of the kernels; timm for its nets
    versions: dict[str, str]
    machine: Machine
    considered: tuple[Considered, ...] = ()  # empty if the user named the net
    # custom functions: purpose → module and name
    parts: dict[str, str] = field(default_factory=dict)
    # custom functions: purpose → digest of the source, if it has one
    code: dict[str, str] = field(default_factory=dict)
    started_from: StartedFrom | None = None
    # started without ``test``, as by a search, so never evaluated on it
    holds_back_test: bool = False

    def __repr__(self) -> str:
        return escape(
            f"RunRecord({self.net_name} on {self.data.name}, {self.recipe}, {self.created})"
        )


def resume_command(path: Path, record: RunRecord) -> str:
    """The command that resumes a run, with the file of a custom module."""
    command = f"lamina resume {shlex.quote(str(path))}"
    module = record.own_module
    return f"{command} {module}" if module is not None and module.file else command


def find_versions(*, with_timm: bool) -> dict[str, str]:
    versions = {
        "lamina": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "kernels": find_kernels().level,
    }
    return versions | {"timm": str(import_timm().__version__)} if with_timm else versions


def describe_machine() -> Machine:
    fields: dict[str, str] = {}
    # On Linux, platform.processor() returns only the architecture.
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
    net = None if record.net is None else record.net.text()
    return {"format": FORMAT, **fields_to_json(record), "net": net}


def parse_record(values: dict[str, Any], file: str) -> RunRecord:
    """The record from :func:`record_to_json`; raises ``RunError`` if ``file`` is damaged."""
    written = values.pop("format", None)
    if written != FORMAT:
        raise RunError(
            f"{file} has format {written!r:.20}, but lamina {__version__} reads format {FORMAT}. "
            "Use the version of lamina that wrote it, or train a new run."
        )
    with blaming(file):
        try:
            if values.get("net") is not None:
                values["net"] = parse_net(values["net"])
        except NetError as error:
            raise ValueError(f"run.net: {error}") from error
        record = from_json_values(RunRecord, values, "run")
        if [record.net, record.own_module, record.timm].count(None) != 2:
            raise ValueError("exactly one of net, own_module and timm must be set")
        if len(record.in_shape) != 3:
            raise ValueError("in_shape must be channels, height and width")
        if not len(record.mean) == len(record.std) == record.in_shape[0]:
            raise ValueError("mean and std must have a value for each channel")
        return record
