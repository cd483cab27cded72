"""The software and hardware that a training runs on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lamina import __version__
from lamina.training.pretrained import import_timm

COMPUTING_FLAGS = ("amx", "avx", "f16c", "fma", "sse", "asimd", "bf16", "fphp", "i8mm", "sve")
"""Prefixes of the processor flags on which the last bits of a sum may depend."""


@dataclass(frozen=True)
class Machine:
    """The hardware of a training.

    Attributes:
        processor: its name, as the system gives it.
        instructions: the widest vector instructions that torch uses, such as ``AVX512``.
        flags: the processor's flags that decide how it computes; empty where the system does not list them.
        cores: logical cores.
        threads: threads that torch computes with.
        platform: operating system and architecture.
    """

    processor: str
    instructions: str
    flags: str
    cores: int
    threads: int
    platform: str


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
    """The processor's name and its computing flags."""
    fields: dict[str, str] = {}
    # On Linux, Python's platform.processor() gives the architecture alone.
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    words = (fields.get("flags") or fields.get("Features") or "").split()
    flags = " ".join(sorted(word for word in words if word.startswith(COMPUTING_FLAGS)))
    return fields.get("model name") or platform.processor() or platform.machine(), flags
