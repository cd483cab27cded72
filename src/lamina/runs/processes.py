"""Make processes that train together agree, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lamina.data import Dataset
from lamina.errors import DataError, RecipeError, plural, warn
from lamina.files import read_bytes
from lamina.runs.folder import RunFolder, unpack_checkpoint
from lamina.runs.record import describe_machine
from lamina.training import group
from lamina.training.checkpoint import Checkpoint

is_leader = group.is_leader
lead_value = group.lead_value
count_processes = group.size


def by_leader(action: Callable[[], object]) -> None:
    """Let the leader act alone; if it fails, all other processes raise ``LeaderError``."""

    def act() -> bytes:
        action()
        return b""

    group.lead(act)


def read_file(file: Path) -> bytes:
    """The content of a file, which the leader reads for all; empty if there is none."""
    return group.lead(lambda: read_bytes(file) if file.exists() else b"")


def load_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """The last checkpoint, which the leader loads for all; ``None`` if there is none."""
    file = folder.checkpoint_file
    content = read_file(file)
    return unpack_checkpoint(content, str(file)) if content else None


def check_processes(dataset: Dataset, device: str) -> None:
    """Require the same images and kind of device for all, and warn if rounding may differ."""
    if group.size() == 1:
        return
    if deviating := group.find_deviating(dataset.fingerprint):
        raise DataError(
            f"{dataset.name} differs between the processes ({deviating}). Use the same images on"
            " every machine, from a shared disk or copied."
        )
    lacks_gpu = device == "cuda" and torch.cuda.current_device() != group.local_rank()
    if lacks_gpu:
        device = "no GPU"
    devices = [name.decode() for name in group.gather(device.encode())]
    if set(devices) not in ({"cpu"}, {"cuda"}):
        listed = ", ".join(f"rank {rank}: {name}" for rank, name in enumerate(devices))
        raise RecipeError(
            "Processes that train together must all use the CPU, or each its own CUDA GPU, but"
            f" there are {listed}. Start fewer processes, or train a new run with --device cpu (in"
            " Python, Recipe(device='cpu'))."
        )
    machine = describe_machine()
    threads = plural(machine.threads, "thread", "threads")
    arithmetic = f"{threads}, {machine.instructions}, {machine.flags}, torch {torch.__version__}"
    deviating = group.find_deviating(arithmetic)
    if deviating and group.is_leader():
        warn(
            f"The processes differ in threads, instruction set or torch version ({deviating}; rank"
            f" 0 has {threads} and {machine.instructions}). The last bits of the weights then"
            " depend on which process has which lanes. Set OMP_NUM_THREADS to the same number"
            " everywhere."
        )
