"""Train several runs of a study at once, each in a process with its share of the threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from lamina.errors import NotFiniteError, RecipeError, RunError, check_type, plural, warn
from lamina.runs.course import RunEvent
from lamina.runs.folder import REPORT_FILE
from lamina.runs.run import Run, load_run
from lamina.studies.experiment import Decision, Events, Experiment, format_minutes
from lamina.studies.study import RunSetup, Started, iter_planned
from lamina.training.custom import NO_PARTS
from lamina.training.events import Step
from lamina.training.randomness import SEEDING
from lamina.training.threads import choose_threads, iter_computing_with

MEMORY_FRACTION = 0.8
"""Fraction of the machine's memory that all jobs together may need."""
STEP_SECONDS = 0.1
"""Time between two steps that a process sends, for the progress bar."""


@dataclass(frozen=True)
class Ended:
    """The last message of a process: its error, if there was one."""

    error: Exception | None = None


@dataclass
class Job:
    """A process that trains, with the messages that the study has not seen yet."""

    iterate: Callable[[], Events[Any]]
    threads: int
    messages: deque[Any] = field(default_factory=deque)
    is_started: bool = False
    is_open: bool = False
    process: ForkProcess = field(init=False)
    connection: Connection = field(init=False)

    def start(self) -> None:
        """Start the process, a fork, which shares images, custom modules and functions."""
        context = multiprocessing.get_context("fork")
        self.connection, sending = context.Pipe(duplex=False)
        arguments = (self.iterate, self.threads, sending, os.getpid())
        self.process = context.Process(target=work, args=arguments, daemon=True)
        # A fork of a thread that has computed with OpenMP waits for threads that it does not have.
        fresh = threading.Thread(target=self._fork)
        fresh.start()
        fresh.join()
        if self.process.pid is None:
            raise RunError(
                "The system could not start a process.", "Use --jobs 1 (in Python, jobs=1)."
            )
        sending.close()
        self.is_started = True
        self.is_open = True

    def _fork(self) -> None:
        # no other thread holds the lock in the new process, which has only this thread
        with SEEDING, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self.process.start()

    def receive(self) -> None:
        """Wait for the next message."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            message = Ended(
                RunError(
                    f"A process was lost (status {self.process.exitcode}). The checkpoint of its"
                    " run is kept. If memory is short, use fewer --jobs (in Python, jobs), and run"
                    " the command again."
                )
            )
        self.messages.append(message)
        if isinstance(message, Ended):
            self.process.join()
            self.is_open = False

    def take(self) -> Events[bool]:
        """The events that were received; shows warnings, and raises the error of the process.

        Returns whether the process has ended.
        """
        while self.messages:
            message = self.messages.popleft()
            if isinstance(message, Warning):
                warnings.warn(message, stacklevel=2)
            elif not isinstance(message, Ended):
                yield message
            elif message.error is not None:
                raise message.error
            else:
                return True
        return False


@dataclass(frozen=True)
class Planned:
    """A run of a study: its folder, and a function that makes what is trained there.

    With ``seconds``, it ends in this time, perhaps within an epoch.
    """

    path: Path
    make: Callable[[], Experiment]  # called where the run is trained
    seconds: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has a report on its last weights."""
        if not (self.path / REPORT_FILE).exists():
            return False
        return self.seconds is not None or load_run(self.path).is_finished

    def iterate(self, setup: RunSetup) -> Events[None]:
        """Train it; its events contain no images."""
        for event in iter_planned(self.make(), setup.at(self.path), self.seconds):
            if isinstance(event, Started):
                run = replace(event.run, dataset=None, module=None, parts=NO_PARTS)
                event = Started(run)
            yield event


def iter_runs(planned: Sequence[Planned], setup: RunSetup) -> Events[dict[Path, Run]]:
    """Train runs, several at once; returns them by folder, without those that diverged.

    Runs that are done are not trained again. The events come in the order of ``planned``.
    """
    waiting = [item for item in planned if not item.is_done]
    diverged = set()
    with closing(Jobs(setup.jobs, len(planned))) as jobs:
        jobs.plan(waiting, setup)
        began = time.perf_counter()
        for number, item in enumerate(waiting, start=1):
            try:
                yield from jobs.iter_run(item.path)
            except NotFiniteError as error:
                diverged.add(item.path)
                yield Decision("warning", f"{item.path.name} diverged", str(error))
                continue
            seconds = (time.perf_counter() - began) * (len(waiting) - number) / number
            progress = f"{number} of {len(waiting)}, {format_minutes(seconds)} left"
            yield Decision("trained", _describe_end(item.path), progress)
    return {item.path: load_run(item.path) for item in planned if item.path not in diverged}


def _describe_end(path: Path) -> str:
    report = load_run(path).report
    return path.name if report is None else f"{path.name}: {report.split} {report.score}"


class Jobs:
    """Processes that train planned runs ahead, while a study takes them in order.

    The study sees the events of each run as if they were trained one after the other.
    """

    def __init__(self, jobs: int | None, runs: int) -> None:
        """Divide the cores.

        The number of ``runs``, not of ``jobs``, determines how many threads each run has.
        """
        cores = choose_threads()
        self.threads = cores.number
        self.most = 1
        self.reason = ""  # for the defaults, until it is announced
        self.tasks: dict[Path, Callable[[], Events[Any]]] = {}
        self.jobs: dict[Path, Job] = {}
        obstacle = find_obstacle()
        if not obstacle:
            self.threads = max(1, cores.number // runs)
            self.most = min(runs, cores.number // self.threads)
            fitting = max(1, count_fitting())
            if jobs is not None:
                self.most = jobs
            elif fitting < self.most:
                self.most = fitting
                self.reason = "memory is short"
            elif runs > 1:
                self.reason = cores.reason or plural(cores.number, "core", "cores")
        elif jobs is not None and jobs > 1:
            warn(f"{obstacle}, so the runs are trained one after the other.")

    def plan(self, planned: Iterable[Planned], setup: RunSetup) -> None:
        """Add runs in the order in which the study takes them.

        The process that trains a run makes its experiment, too, with its own images.
        """
        for item in planned:
            self.tasks[item.path] = partial(item.iterate, setup)
            if self.most > 1:
                self.jobs[item.path] = Job(self.tasks[item.path], self.threads)

    def iter_run(self, path: Path) -> Events[None]:
        """The events of a planned run, which may be trained ahead."""
        yield from self.announce()
        if path not in self.jobs:
            yield from iter_computing_with(self.threads, self.tasks[path]())
            return
        job = self.jobs[path]
        is_done = False
        while not is_done:
            for waiting in self.jobs.values():
                if not waiting.is_started and len(self._list_open()) < self.most:
                    waiting.start()
            if not job.messages:
                connections = {running.connection: running for running in self._list_open()}
                for connection in wait(list(connections)):
                    connections[connection].receive()  # type: ignore[index]
            is_done = yield from job.take()

    def announce(self) -> Iterator[Decision]:
        """Yield once how many runs are trained at once, and why, unless ``jobs`` was given."""
        reason = self.reason
        self.reason = ""
        if reason:
            threads = plural(self.threads, "thread", "threads")
            yield Decision("jobs", f"{self.most} at once, {threads} each", reason)

    def _list_open(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.is_open]

    def start_helpers(self, iterate: Callable[[], Events[Any]]) -> None:
        """Start processes that work alongside this one, all with the same number of threads."""
        for number in range(1, self.most):
            helper = Job(iterate, self.threads)
            helper.start()
            self.jobs[Path(f"{number}")] = helper

    def iter_help(self, kind: type[RunEvent], seconds: float | None = 0.0) -> Iterator[RunEvent]:
        """The events of helpers, waiting ``seconds`` for each; with ``None``, until they end."""
        for helper in self.jobs.values():
            while helper.is_open and helper.connection.poll(seconds):
                helper.receive()
            try:
                yield from (event for event in helper.take() if isinstance(event, kind))
            except Exception as error:
                warn(f"A process of the study ended early: {error}")

    def close(self) -> None:
        """Let processes save their checkpoints and end; a second interrupt does not wait."""
        running = self._list_open()
        try:
            for job in running:
                job.connection.close()  # otherwise, they would wait until their events are read
                job.process.terminate()
            for job in running:
                job.process.join()
        finally:
            for job in running:
                job.process.kill()


def check_jobs(jobs: int | None) -> None:
    check_type(jobs, (int,), "jobs", "a whole number")
    if jobs is not None and jobs < 1:
        raise RecipeError(
            f"jobs is {jobs}; it must be at least 1. Use --jobs 2 (in Python, jobs=2)."
        )


def count_fitting() -> int:
    """The number of processes that fit into memory if each needs as much as this one.

    Processes share the pages of files, such as mapped images.
    """
    import resource  # not on Windows

    page_bytes = os.sysconf("SC_PAGE_SIZE")
    _, _, shared_pages, *_ = Path("/proc/self/statm").read_text().split()
    most_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    used_bytes = most_bytes - int(shared_pages) * page_bytes
    all_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with suppress(OSError, ValueError):
            all_bytes = min(all_bytes, int(Path("/sys/fs/cgroup", limit).read_text()))
    return int(MEMORY_FRACTION * all_bytes / used_bytes)


def find_obstacle() -> str:
    """Why processes cannot train; empty if they can."""
    if sys.platform != "linux":
        return "Only Linux can fork processes that train"
    if torch.accelerator.is_available():
        return "Processes cannot share a GPU or be forked while one is in use"
    if threading.current_thread() is not threading.main_thread():
        return "Only the main thread of a program can fork processes that train"
    return ""


def work(
    iterate: Callable[[], Events[Any]], threads: int, sending: Connection, parent: int
) -> None:
    """Train and send the events: the main function of a process."""
    stopped = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study decides
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    warnings.showwarning = lambda warning, *_, **__: sending.send(warning)
    torch.set_num_threads(threads)
    ended = Ended()
    shown = 0.0
    try:
        with closing(iterate()) as events:
            for event in events:
                if not isinstance(event, Step):
                    sending.send(event)
                elif time.monotonic() - shown > STEP_SECONDS:
                    shown = time.monotonic()
                    sending.send(event)
                if stopped.is_set() or os.getppid() != parent:
                    return
    except Exception as error:
        ended = Ended(make_portable(error))
    with suppress(OSError):
        sending.send(ended)


def make_portable(error: Exception) -> Exception:
    """The error, or a ``RunError`` with its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301, written here
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error
