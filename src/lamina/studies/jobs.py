"""Train several runs of a study at once, each in a process with its share of the threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from lamina.errors import RecipeError, RunError, check_type, warn
from lamina.runs.folder import REPORT_FILE
from lamina.runs.loading import load_run
from lamina.runs.run import Run
from lamina.studies.experiment import Candidate, Events, Experiment
from lamina.studies.study import RunSetup, Started, iter_planned, load_planned
from lamina.training.custom import NO_PARTS
from lamina.training.device import choose_device
from lamina.training.events import Step
from lamina.training.randomness import SEEDING

MEMORY_FRACTION = 0.8
"""Of the machine's memory, what all jobs may need together."""


@dataclass(frozen=True)
class Ended:
    """The last message of a process: its error, if there was one."""

    error: Exception | None = None


@dataclass(frozen=True)
class Warned:
    """A warning in a process."""

    message: str
    category: type[Warning]


@dataclass
class Job:
    """A process that trains a run, with the messages that the study has not seen yet."""

    process: ForkProcess
    connection: Connection
    messages: deque[Any] = field(default_factory=deque)
    is_open: bool = True

    def receive(self) -> None:
        """Take the next message; of steps, the latest is enough."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.is_open = False
            return
        if self.messages and isinstance(message, Step) and isinstance(self.messages[-1], Step):
            self.messages.pop()
        self.messages.append(message)
        if isinstance(message, Ended):
            self.process.join()
            self.is_open = False


class Jobs:
    """Trains planned runs ahead, several at once, while a study takes them in their order.

    The study sees the events of each run as if they were trained one after the other. Processes are
    forks, which share images, own modules and own functions with the study.
    """

    def __init__(
        self,
        jobs: int | None,
        runs: int,
        experiments: Iterable[Experiment],
        *,
        has_time_limit: bool = False,
    ) -> None:
        """The number of ``runs`` of the study decides on the threads of each, not the jobs."""
        check_jobs(jobs)
        cores = torch.get_num_threads()
        self.threads = max(1, cores // runs)
        self.most = jobs or max(1, min(cores // self.threads, count_fitting()))
        self.makers: dict[Path, Callable[[], Experiment]] = {}
        self.planned: dict[Path, Callable[[], Job]] = {}
        self.waiting: list[Path] = []
        self.jobs: dict[Path, Job] = {}
        obstacle = "A time limit holds for one run at a time"
        if not has_time_limit:
            obstacle = find_obstacle(experiments)
        if obstacle and (jobs or 1) > 1:
            warn(f"{obstacle}, so the runs are trained one after the other, with all threads.")
        self.can_fork = not obstacle
        if obstacle:
            self.most = 1
            self.threads = cores

    def plan(self, makers: Mapping[Path, Callable[[], Experiment]], setup: RunSetup) -> None:
        """Add runs by folder, in the order in which the study takes them.

        The process that trains a run makes its experiment, too, with its own images.
        """
        self.makers |= makers
        for path, make in makers.items():
            if self.can_fork and not (path / REPORT_FILE).exists():
                self._plan_run(make, setup.at(path))

    def _plan_run(self, make: Callable[[], Experiment], setup: RunSetup) -> None:
        threads = self.threads
        if (setup.path / "run.json").exists():  # as before an interruption
            threads = load_run(setup.path).record.machine.threads
        if self.most > 1 or threads != torch.get_num_threads():
            train = partial(iter_made, make, setup)
            self.planned[setup.path] = partial(start_job, train, threads)
            self.waiting.append(setup.path)

    def iter_run(self, path: Path, setup: RunSetup) -> Events[Run]:
        """The events of a planned run, which may be trained ahead; returns the run."""
        setup = setup.at(path)
        experiment = self.makers[path]()
        candidate = Candidate.of(experiment)
        if path not in self.planned:
            return (yield from iter_planned(candidate, None, setup))
        is_again = False
        while True:
            self._start()
            job = self.jobs.get(path)
            while job is not None and job.messages:
                message = job.messages.popleft()
                if isinstance(message, Warned):
                    warnings.warn(message.message, message.category, stacklevel=2)
                elif not isinstance(message, Ended):
                    if isinstance(message, Started):
                        run = message.run
                        run = replace(run, dataset=experiment.dataset, parts=experiment.parts)
                        message = Started(run)
                    yield message
                elif message.error is not None:
                    raise message.error
                else:
                    return load_planned(candidate, setup)
            if job is not None and not job.is_open:
                self._continue_lost(path, job, is_again)
                is_again = True
            else:
                self._receive()

    def _continue_lost(self, path: Path, job: Job, is_again: bool) -> None:
        """Forget a process that was killed; ``RunError`` for the second time."""
        lost = f"The process that trained {path} was lost (status {job.process.exitcode})"
        if is_again:
            raise RunError(
                f"{lost} twice. Its checkpoint is kept. If memory is short, use fewer --jobs (in"
                " Python, jobs), and run the command again."
            )
        self.most = max(1, self.most - 1)
        warn(f"{lost}. lamina continues the run, and trains {self.most} at once.")
        del self.jobs[path]
        self.waiting.insert(0, path)

    def _start(self) -> None:
        """Start runs while there are fewer than jobs."""
        while self.waiting and sum(job.is_open for job in self.jobs.values()) < self.most:
            path = self.waiting.pop(0)
            self.jobs[path] = self.planned[path]()

    def _receive(self) -> None:
        """Wait for messages of the processes."""
        connections = {job.connection: job for job in self.jobs.values() if job.is_open}
        for connection in wait(list(connections)):
            connections[connection].receive()  # type: ignore[index]

    def close(self) -> None:
        """Stop all processes, which save their runs."""
        stop_jobs(list(self.jobs.values()))


@contextmanager
def training_together(
    iterate: Callable[[], Events[Any]],
    jobs: int | None,
    experiment: Experiment,
    most: float,
    kinds: tuple[type, ...],
) -> Iterator[Callable[[], list[Any]]]:
    """Let processes work beside this one; a function returns their events of these kinds."""
    runs = int(min(most, torch.get_num_threads()))
    plan = Jobs(jobs, runs, [experiment])
    helpers = [start_job(iterate, plan.threads, kinds) for _ in range(plan.most - 1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads)

    def receive() -> list[Any]:
        events = []
        for helper in helpers:
            while helper.is_open and helper.connection.poll():
                helper.receive()
            for message in helper.messages:
                if isinstance(message, Warned):
                    warnings.warn(message.message, message.category, stacklevel=2)
                elif not isinstance(message, Ended):
                    events.append(message)
                elif message.error is not None:
                    warn(f"A process of the study ended early: {message.error}")
            helper.messages.clear()
        return events

    try:
        yield receive
    finally:
        torch.set_num_threads(threads)
        stop_jobs(helpers)


def check_jobs(jobs: int | None) -> None:
    check_type(jobs, (int,), "jobs", "a whole number")
    if jobs is not None and jobs < 1:
        raise RecipeError(
            f"jobs is {jobs}; it must be at least 1. Use --jobs 2 (in Python, jobs=2)."
        )


def count_fitting() -> int:
    """The number of processes that fit into memory if each needs as much as this one."""
    if sys.platform != "linux":
        return 1
    import resource

    used_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    all_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(MEMORY_FRACTION * all_bytes / used_bytes)


def find_obstacle(experiments: Iterable[Experiment]) -> str:
    """Why processes cannot train these experiments; empty if they can."""
    if sys.platform != "linux":
        return "Only Linux can fork processes that train"
    if torch.accelerator.is_available():
        return "Processes cannot share a GPU, nor fork beside one"
    devices = {choose_device(experiment.recipe.device) for experiment in experiments}
    if any(device.value != "cpu" for device in devices):
        return "Processes train on the CPU only"
    if threading.current_thread() is not threading.main_thread():
        return "Only the main thread of a program can fork processes that train"
    return ""


def iter_made(make: Callable[[], Experiment], setup: RunSetup) -> Events[Run]:
    """Make an experiment and train it."""
    return (yield from iter_planned(Candidate.of(make()), None, setup))


def start_job(
    iterate: Callable[[], Events[Any]], threads: int, kinds: tuple[type, ...] = (object,)
) -> Job:
    """Start a process that trains, and sends its events of these kinds."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    arguments = (iterate, threads, kinds, sending, os.getpid())
    process = context.Process(target=work, args=arguments, daemon=True)
    # no other thread holds the lock in the new process, which has only this thread
    with SEEDING, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        process.start()
    sending.close()
    return Job(process, receiving)


def work(
    iterate: Callable[[], Events[Any]],
    threads: int,
    kinds: tuple[type, ...],
    sending: Connection,
    parent: int,
) -> None:
    """Train and send the events: the main function of a process."""
    stopped = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study decides
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())

    def forward(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        sending.send(Warned(str(message), category))

    warnings.showwarning = forward
    torch.set_num_threads(threads)
    ended = Ended()
    try:
        with closing(iterate()) as events:
            for event in events:
                if isinstance(event, Started):  # without what the study has itself
                    run = replace(event.run, dataset=None, module=None, parts=NO_PARTS)
                    event = Started(run)
                if isinstance(event, kinds):
                    sending.send(event)
                if stopped.is_set() or os.getppid() != parent:
                    return
    except Exception as error:
        ended = Ended(make_portable(error))
    with suppress(OSError):
        sending.send(ended)


def stop_jobs(jobs: Sequence[Job]) -> None:
    """Let processes save their checkpoints and end; a second interrupt does not wait."""
    running = [job for job in jobs if job.is_open]
    try:
        for job in running:
            job.connection.close()  # does not let them wait until their events are read
            job.process.terminate()
        for job in running:
            job.process.join()
    finally:
        for job in running:
            job.process.kill()


def make_portable(error: Exception) -> Exception:
    """The error, or a ``RunError`` with its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301, written here
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error
