"""What processes must agree on to train a run together: record, checkpoint, folder and hardware."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from lamina.errors import LaminaWarning, RecipeError, RunError, plural
from lamina.runs.record import RunRecord, describe_machine, parse_record, record_to_json
from lamina.runs.run_folder import RunFolder, pack_checkpoint, unpack_checkpoint
from lamina.training.checkpoint import Checkpoint
from lamina.training.device import choose_again
from lamina.training.group import Group


def lead_record(group: Group, action: Callable[[], RunRecord]) -> RunRecord:
    """The record that ``action`` returns in the leader, for all processes."""
    if group.size == 1:
        return action()
    return parse_record(group.lead_json(lambda: record_to_json(action())), "run.json")


def share_checkpoint(folder: RunFolder, group: Group) -> Checkpoint | None:
    """The last checkpoint, read by the leader for all; ``None`` if there is none."""
    if group.size == 1:
        return folder.read_checkpoint()

    def read() -> bytes:
        checkpoint = folder.read_checkpoint()
        return b"" if checkpoint is None else pack_checkpoint(checkpoint)

    content = group.lead(read)
    return unpack_checkpoint(content, "the leader's checkpoint") if content else None


def check_place(path: Path, group: Group) -> None:
    """Raise ``RunError`` if another process has the run, but the leader does not."""
    if group.size == 1:
        return
    found = [text == b"1" for text in group.gather(b"1" if (path / "run.json").exists() else b"0")]
    if any(found) and not found[0]:
        raise RunError(
            f"Rank {found.index(True)} has the run {path}, but rank 0, which writes it, does not."
            " Keep runs on a disk that the machines share, or start torchrun with --node-rank 0 on"
            " the machine that has the run."
        )


def check_processes(record: RunRecord, group: Group) -> None:
    """Require the same kind of device for all processes, and warn if rounding may differ."""
    if group.size == 1:
        return
    device = choose_again(record.device).value
    lacks_own = device == "cuda" and group.local_rank >= torch.cuda.device_count()
    devices = [text.decode() for text in group.gather(("no GPU" if lacks_own else device).encode())]
    if set(devices) not in ({"cpu"}, {"cuda"}):
        found = ", ".join(f"rank {rank}: {one}" for rank, one in enumerate(devices))
        raise RecipeError(
            "Processes that train together must all use the CPU, or each its own CUDA GPU, but"
            f" found {found}. Start fewer processes, or train a new run with --device cpu (in"
            " Python, device='cpu')."
        )
    machine = describe_machine()
    computes = (
        f"{machine.threads} threads, {machine.instructions}, {machine.flags}, torch"
        f" {torch.__version__}"
    )
    if (deviating := group.find_deviating(computes)) and group.is_leader:
        warnings.warn(
            f"The processes differ in threads, instruction set or torch version ({deviating}; rank"
            f" 0 has {plural(machine.threads, 'thread', 'threads')} and {machine.instructions})."
            " The last bits of the weights then depend on which process has which lanes. Set"
            " OMP_NUM_THREADS to the same number everywhere.",
            LaminaWarning,
            stacklevel=4,
        )
