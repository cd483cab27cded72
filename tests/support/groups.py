"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore

from support import forking
from support.commands import start_process


@dataclass(frozen=True)
class Ended:
    """A process of a group that has ended."""

    status: int
    printed: str
    errors: str


def run_group(size: int, *words: str | Path, code: str = forking.MODULE) -> list[Ended]:
    """Run processes with the environment that torchrun gives them, by rank."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(size),
    }
    processes = [
        start_process(*words, code=code, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(size)
    ]
    ended = []
    for process in processes:
        with process:
            printed, errors = process.communicate()
        ended.append(Ended(process.returncode, printed, errors))
    return ended
