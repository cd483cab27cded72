"""How many threads to train with: all cores, or before a time limit the idle ones."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from lamina.data.pixels import count_cores, list_processors

SAMPLE_SECONDS = 0.1
MOST_SAMPLES = 5
"""Other programs use the least of so many measurements; without any, the first one is enough."""
DECIDED_BY = "OMP_NUM_THREADS"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Threads:
    """A number of threads, and of how many that could be; the reason is empty without a choice."""

    number: int
    most: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.number} of {self.most}"


def choose_threads(*, has_time_limit: bool = False) -> Threads:
    """As many threads as there are cores; with a time limit, as there are idle cores.

    A thread that waits for another uses its core, so two trainings that together have more threads
    than cores slow each other down several times.
    """
    threads = torch.get_num_threads()
    if DECIDED_BY in os.environ:
        return Threads(threads, threads, f"{DECIDED_BY} is {os.environ[DECIDED_BY]}")
    cores = count_cores()
    most = min(threads, cores)
    processors = len(list_processors())
    # the load of a host does not reduce the cores of a container
    if most == 1 or not has_time_limit or cores < processors:
        return Threads(most, most)
    busy = measure_busy_cores()
    number = max(1, min(most, round(processors - busy)))
    reason = ""
    if number < most:
        reason = f"other programs use {busy:.1f} cores; set {DECIDED_BY}={most} to use {most}"
    return Threads(number, most, reason)


def keep_threads(recorded: int) -> int:
    """The recorded number of threads, unless the environment or this machine decides otherwise."""
    if DECIDED_BY in os.environ or recorded > count_cores():
        return torch.get_num_threads()
    return recorded


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch compute with this number of threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def iter_computing_with(
    threads: int, items: Generator[Item, None, Result]
) -> Generator[Item, None, Result]:
    """Yield the items of a generator that computes with this number of threads.

    Between two items, the caller's number is restored.
    """
    with closing(items):
        while True:
            with computing_with(threads):
                try:
                    item = next(items)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
            yield item


def measure_busy_cores() -> float:
    """The number of cores that other programs use now; 0 where the system does not say (not Linux).

    This process waits meanwhile.
    """
    processors = list_processors()
    busy = math.inf
    for _ in range(MOST_SAMPLES):
        idle_before, all_before = _read_ticks(processors)
        time.sleep(SAMPLE_SECONDS)
        idle, ticks = _read_ticks(processors)
        if ticks == all_before:
            return 0.0
        is_idle = (idle - idle_before) / (ticks - all_before)
        busy = min(busy, len(processors) * (1 - is_idle))
        if round(busy) == 0:
            break
    return busy


def measure_share() -> float:
    """The fraction of a core that this thread gets now beside other programs."""
    began = time.perf_counter()
    used = time.thread_time()
    while time.perf_counter() < began + SAMPLE_SECONDS:
        pass
    return (time.thread_time() - used) / (time.perf_counter() - began)


def _read_ticks(processors: set[int]) -> tuple[int, int]:
    """The idle and all ticks of processors since the system started (proc_stat(5))."""
    idle = 0
    ticks = 0
    with suppress(OSError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            number = name.removeprefix("cpu")
            if name.startswith("cpu") and number.isdecimal() and int(number) in processors:
                user, nice, system, waiting, disk, *others = map(int, fields[:8])
                idle += waiting + disk
                ticks += user + nice + system + waiting + disk + sum(others)
    return idle, ticks
