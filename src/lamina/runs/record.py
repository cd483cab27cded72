"""What is worth knowing of a training afterwards: the net, the recipe, the data, the software and the machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina import __version__
from lamina.data.preparation import Preparation
from lamina.nets import Net, Shape
from lamina.training.device import Choice
from lamina.training.loop import Training
from lamina.training.precision import Precision
from lamina.training.pretrained import TimmNet, import_timm
from lamina.training.recipe import Recipe
from lamina.training.task import Task

COMPUTING_FLAGS = ("amx", "avx", "f16c", "fma", "sse", "asimd", "bf16", "fphp", "i8mm", "sve")
"""How the names begin of a processor's flags on which the last bits of a sum may depend."""


@dataclass(frozen=True)
class OwnModule:
    """Where a user's own module comes from. It is for people: lamina runs no file because a run names it."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}" if self.name else self.file


@dataclass(frozen=True)
class DataOrigin:
    """What a model was trained on.

    Attributes:
        source: the name or path that it was loaded by.
        reason: why this set, as ``as asked``.
        name: of the data set.
        fingerprint: of its content.
        preparation: how it was asked to be read.
    """

    source: str
    reason: str
    name: str
    fingerprint: str
    preparation: Preparation


@dataclass(frozen=True)
class Machine:
    """What a training ran on.

    Attributes:
        processor: its name, as the system tells it.
        instructions: the widest vector instructions that torch uses, such as ``AVX512``.
        flags: of the processor, those that decide how it computes; empty where the system does not tell them.
        cores: logical cores of the machine.
        threads: threads that torch computes with.
        platform: operating system and architecture.
    """

    processor: str
    instructions: str
    flags: str
    cores: int
    threads: int
    platform: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What ``run.json`` holds.

    Attributes:
        net_name: what the net is called in tables and in the run's name.
        net: its layers; ``None`` for a module.
        own_module: where a user's own module comes from; ``None`` for other nets.
        timm: which of timm's nets it is, and its first weights; ``None`` for other nets.
        recipe: how it is trained, the seed among it.
        task: what its outputs mean.
        in_shape: channels, height and width of an image.
        mean: of each channel, in pixel values 0 to 255.
        std: standard deviation of each channel, in pixel values.
        parameters: how many numbers the model has.
        data: what it is trained on.
        device: where it is trained, and why there.
        precision: in which number format, why, and which layers in float32 all the same.
        rewind_on_nan: whether it goes back to its last checkpoint where a number goes wrong, instead of ending.
        command: the command line, a word each.
        created: when, by ISO 8601 in UTC.
        versions: of lamina, Python, torch and NumPy, and of timm where the net is timm's.
        machine: the hardware.
    """

    net_name: str
    net: Net | None
    own_module: OwnModule | None
    timm: TimmNet | None
    recipe: Recipe
    task: Task
    in_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parameters: int
    data: DataOrigin
    device: Choice
    precision: Precision
    rewind_on_nan: bool
    command: tuple[str, ...]
    created: str
    versions: dict[str, str]
    machine: Machine


def record_training(
    training: Training,
    data: DataOrigin,
    *,
    net_name: str,
    own_module: OwnModule | TimmNet | None = None,
    rewind_on_nan: bool = False,
    command: Sequence[str] = (),
) -> RunRecord:
    """What ``run.json`` is to hold of a training about to begin, here and now.

    Args:
        training: what is recorded.
        data: what it learns from, which a training does not know by name.
        net_name: what to call the net.
        own_module: where the net comes from if it is a module of the user's own or timm's.
        rewind_on_nan: whether it goes back to its last checkpoint where a number goes wrong.
        command: the words of the command line.
    """
    model = training.model
    timm = own_module if isinstance(own_module, TimmNet) else None
    return RunRecord(
        net_name=net_name,
        net=model.net,
        own_module=own_module if isinstance(own_module, OwnModule) else None,
        timm=timm,
        recipe=training.recipe,
        task=model.task,
        in_shape=tuple(model.in_shape),
        mean=model.mean,
        std=model.std,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=data,
        device=training.device,
        precision=training.precision,
        rewind_on_nan=rewind_on_nan,
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=find_versions(with_timm=timm is not None),
        machine=describe_machine(),
    )


def upgrade_record(values: dict[str, Any], written: int) -> dict[str, Any]:
    """What ``run.json`` held in an older format, as the present one has it; damaged parts are left for the reader."""
    if written < 2:
        values = {"rewind_on_nan": False} | values
        for name, absent in (("machine", {"flags": ""}), ("precision", {"float32_layers": []})):
            if isinstance(values.get(name), dict):
                values[name] = absent | values[name]
    data = values.get("data")
    if written < 3 and isinstance(data, dict):
        asked = {name: data[name] for name in ("size_px", "resize") if name in data}
        kept = {name: value for name, value in data.items() if name not in asked}
        values = values | {"data": kept | {"preparation": asked}}
    if written < 3:
        values = {"timm": None} | values
    return values


def find_versions(*, with_timm: bool = False) -> dict[str, str]:
    """The versions of the software that computes."""
    versions = {
        "lamina": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return versions | {"timm": str(import_timm().__version__)} if with_timm else versions


def describe_machine() -> Machine:
    """The hardware, here and now."""
    name, flags = _read_processor()
    return Machine(
        processor=name,
        instructions=torch.backends.cpu.get_cpu_capability(),
        flags=flags,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        platform=platform.platform(),
    )


def _read_processor() -> tuple[str, str]:
    """The processor's name, and those of its flags that decide how it computes."""
    told: dict[str, str] = {}
    # Python tells the architecture alone on Linux.
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                told.setdefault(name.strip(), value.strip())
    words = (told.get("flags") or told.get("Features") or "").split()
    flags = " ".join(sorted(word for word in words if word.startswith(COMPUTING_FLAGS)))
    return told.get("model name") or platform.processor() or platform.machine(), flags
