"""Jobs: lamina commands as processes, which wait for their turn.

One trains or checks labels at a time, one makes a file of a run, and two read data.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shlex
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from lamina.deploy.studio.events import Events
from lamina.deploy.studio.recipe_fields import name_field
from lamina.deploy.web.access import without_token
from lamina.errors import RunError
from lamina.files import check_name

State = Literal["queued", "running", "done", "stopped", "failed"]
LINE_BYTES = 2**30  # at most; lamina data lists all duplicates in one line
SHOWN_IMAGES = 20  # of a finding about data; the command lists all
NICENESS = 5  # of all commands that do not train
# exit status on request
STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
SHOWN = (
    "number", "run", "state", "problem", "is_stopping", "is_finishing", "seconds",
    "chooses_net", "choosing_seconds", "checked", "label_issues",
)  # fmt: skip
CAUSES = {-9: "was stopped from outside; perhaps memory ran out"}  # SIGKILL, unknown to Windows
REMEDIES = {  # by the kind of the error of a command
    "NotFiniteError": "Train again with a lower learning rate.",
    "WriteError": "Free disk space, then press Continue.",
}
MOST_READING = 2  # commands at once
KEPT_JOBS = 100  # that have ended
NAMES = ".names"  # folder of the locks of reserved names, among the runs
END_SECONDS = 60.0  # to save a run in training when the studio ends


@dataclass(eq=False)
class Job:
    """A command, without the word ``lamina``, and its state."""

    words: Sequence[str]
    run: str = ""  # name of the run that it trains
    number: int = 0  # once it has been queued
    is_training: bool = False
    makes_file: bool = False
    labels_from: Path | None = None  # corrected labels, unless they are undone while it waits
    state: State = "queued"
    problem: str = ""
    began: float = 0.0  # when it started to run, in seconds since 1970
    is_stopping: bool = False
    is_finishing: bool = False
    lock: FileLock | None = field(default=None, repr=False)  # which reserves the name of its run
    process: Process | None = field(default=None, repr=False)
    seconds: float | None = None  # the time limit of training
    chooses_net: bool = False
    choosing_seconds: float | None = None  # until the first step, if it chooses the net
    may_download: bool = False  # the user has asked for it
    checked: dict[str, Any] | None = None  # the data set whose labels it checks
    label_issues: list[dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def command(self) -> list[str]:
        """All words of the command but ``lamina``."""
        if self.labels_from is None:
            return list(self.words)
        return [*self.words, f"--labels-from={self.labels_from}"]

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in SHOWN}
        command = shlex.join(["lamina", *self.command])
        # the clocks of the studio and of a page may differ
        ran = time.time() - self.began if self.began else 0.0
        return {"event": "job", "command": command, "ran_seconds": ran, **values}


@dataclass(eq=False)
class Jobs:
    """All jobs of the studio; their events go to all pages."""

    runs_dir: Path
    events: Events
    jobs: list[Job] = field(default_factory=list)
    is_closing: bool = False
    # Microseconds, so that a page does not take the jobs of a studio that was started again for its
    # own.
    _numbers: itertools.count[int] = field(
        default_factory=lambda: itertools.count(time.time_ns() // 1000)
    )
    # one run at a time, in order of arrival
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_READING))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _reserved: dict[str, FileLock] = field(default_factory=dict)  # names of runs

    def start(self, job: Job) -> Job:
        """Queue a command, which starts when it is its turn."""
        if self.is_closing:
            raise RunError("The studio is ending. Start it again.")
        job.number = next(self._numbers)
        job.lock = self._reserved.pop(job.run, None)
        if job.checked is not None:
            for other in self.jobs:
                other.label_issues = None  # pages that open show the last check
        ended = [other for other in self.jobs if not other.is_active]
        dropped = ended[:-KEPT_JOBS]
        self.jobs = [*(other for other in self.jobs if other not in dropped), job]
        self._announce(job)
        task = asyncio.create_task(self._wait_and_run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: free_name(job))
        return job

    def choose_name(self, wish: str, beginning: str) -> str:
        """Reserve a name for a new run: ``wish``, or ``beginning`` and a number that is new."""
        # unlike names of lamina train, it does not begin with a date, so that names never clash
        if not wish:
            numbers = itertools.count(self._find_number(beginning))
            names = (f"{beginning}-{number}" for number in numbers)
            return next(name for name in names if self.reserve(name))
        check_name(wish)
        if not self.reserve(wish):
            raise RunError(
                f"There is already a run {wish}, or a studio will train it. Use another name, or"
                " select the run to continue it."
            )
        return wish

    def reserve(self, run: str) -> bool:
        """Reserve a run's name until its training ends; ``False`` if a run or a studio has it.

        The system frees the name if the studio is killed; the lock file is kept.
        """
        if self.find_active(run) is not None or (self.runs_dir / run).exists():
            return False
        names = self.runs_dir / NAMES
        lock = FileLock(names / f"{run}.lock", thread_local=False)
        try:
            self.runs_dir.mkdir(parents=True, exist_ok=True)
            names.mkdir(mode=0o700, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError:  # training reports why it cannot write there
            return True
        self._reserved[run] = lock
        return True

    def _find_number(self, beginning: str) -> int:
        """The first number above all runs with this beginning, including deleted runs."""
        numbered = re.compile(re.escape(beginning) + r"-(\d{1,9})(\.lock)?")
        places = (self.runs_dir, self.runs_dir / NAMES)
        names = [file.name for place in places if place.is_dir() for file in place.iterdir()]
        matches = filter(None, map(numbered.fullmatch, names))
        return 1 + max((int(match[1]) for match in matches), default=0)

    def has_failed(self, run: str) -> bool:
        """Whether a training of the run failed."""
        return run != "" and any(job.run == run and job.state == "failed" for job in self.jobs)

    def uses(self, path: Path) -> bool:
        """Whether a command in progress is about the run in this folder."""
        return any(job.is_active and str(path) in job.words for job in self.jobs)

    def forget(self, run: str) -> None:
        """Forget the trainings of a run that is deleted, unless they go on; tell all pages."""
        self.jobs = [job for job in self.jobs if job.run != run or job.is_active]
        self.events.send({"event": "deleted", "run": run})

    def find_active(self, run: str, number: int | None = None) -> Job | None:
        """The job in progress that has a number, or that trains a run."""
        for job in self.jobs:
            is_of_run = run != "" and job.run == run
            if job.is_active and (is_of_run or job.number == number):
                return job
        return None

    def stop(self, job: Job, *, is_finishing: bool = False) -> None:
        """Ask a command to save and end.

        With ``is_finishing``, the learning rate falls first, and the run is evaluated.
        """
        if is_finishing and job.is_stopping:  # a second signal would end it before it has saved
            return
        job.is_finishing = is_finishing
        job.is_stopping = True
        if job.state == "queued":
            job.state = "stopped"
            free_name(job)
        elif job.process is not None:
            with suppress(ProcessLookupError):
                job.process.send_signal(signal.SIGINT if is_finishing else signal.SIGTERM)
        self._announce(job)

    async def close(self) -> list[str]:
        """Stop all commands; return sentences about the runs that were in training."""
        self.is_closing = True
        active = [job for job in self.jobs if job.is_active]
        for job in active:
            self.stop(job)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        return [self._describe_end(job) for job in active if job.run]

    def _describe_end(self, job: Job) -> str:
        path = self.runs_dir / job.run
        resume = f"press Continue in the studio, or run lamina resume {shlex.quote(str(path))}"
        if job.is_active:
            return f"{job.run} is still being saved by its own process; when it has ended, {resume}"
        if not (path / "run.json").exists():
            return (
                f"{job.run} had not begun; to train it, run {shlex.join(['lamina', *job.command])}"
            )
        if job.problem:
            return f"{job.run}: {job.problem}"
        return f"{job.run} is saved; to continue it, {resume}"

    async def _wait_and_run(self, job: Job) -> None:
        place: asyncio.Lock | asyncio.Semaphore = self._reading
        if job.is_training:
            place = self._turn
        elif job.makes_file:
            place = self._making
        async with place:
            if job.state != "queued":
                return
            try:
                status, last = await self._execute(job)
                self._settle(job, status, last)
            except Exception as error:  # the studio goes on
                if job.process is not None:
                    with suppress(ProcessLookupError):
                        job.process.kill()
                job.state = "failed"
                job.problem = f"The command could not be run: {error}. Try again."
            job.process = None
            self._announce(job)

    def _settle(self, job: Job, status: int, last: str) -> None:
        """Note how a command has ended, by its exit status and its last line on stderr."""
        is_stopped = job.is_stopping and status in STOPPED
        if status == 0 or is_stopped:
            job.state = "stopped" if is_stopped else "done"
            job.problem = ""
            return
        job.state = "failed"
        if not job.problem:  # the message of its error
            if job.run and (self.runs_dir / job.run / "run.json").exists():
                last = "The run is saved up to its last checkpoint; press Continue."
            cause = CAUSES.get(status, f"ended with status {status}")
            job.problem = f"The process {cause}. {last}"

    async def _execute(self, job: Job) -> tuple[int, str]:
        """Run the command and pass on its events; return exit status and last line on stderr."""
        if job.labels_from is not None and not job.labels_from.is_file():
            job.labels_from = None
        # -P: import no modules from the current folder
        command = [sys.executable, "-P", "-m", "lamina", *job.command, "--json"]
        if not job.makes_file:
            command.append("--progress")
        if not job.is_training and os.name != "nt":
            command = ["nice", "-n", str(NICENESS), *command]
        environment = without_token()
        if not job.may_download:
            environment["LAMINA_OFFLINE"] = "1"
        job.process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C reaches only the studio, which then stops its commands
            env=environment,
        )
        if job.is_stopping:  # while the process was created
            process.terminate()
        job.state = "running"
        job.began = time.time()
        self._announce(job)
        _, last = await asyncio.gather(self._read_events(job, process), read_last_line(process))
        return await process.wait(), last

    async def _read_events(self, job: Job, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101
        async for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a process that was killed leaves half a line
            if job.chooses_net and not job.choosing_seconds and event["event"] == "step":
                job.choosing_seconds = time.time() - job.began
            match event["event"]:
                case "error":
                    job.problem = describe_problem(event)
                    continue
                case "labels":
                    job.label_issues = event["label_issues"]  # for pages that open later
                    continue
                case "data":
                    shorten(event)
            self.events.send(event | {"job": job.number, "run": job.run})

    def _announce(self, job: Job) -> None:
        self.events.send(job.to_json())


async def read_last_line(process: Process) -> str:
    """The last line on stderr, which is the reason if the process crashed."""
    text = ""
    assert process.stderr is not None  # noqa: S101
    async for line in process.stderr:
        text = line.decode(errors="replace").rstrip()
    return text


def describe_problem(event: dict[str, Any]) -> str:
    """The problem of a command that failed, with what to do on the page."""
    problem = name_field(event["problem"], event["field"])
    return f"{problem} {REMEDIES.get(event['kind'], '')}".rstrip()


def free_name(job: Job) -> None:
    """Free the name of a run that a job has reserved."""
    if job.lock is not None:
        job.lock.release()
        job.lock = None


def shorten(event: dict[str, Any]) -> None:
    """Leave out most images of findings about data; the command lists all."""
    del event["duplicates"]
    for finding in event["findings"]:
        finding["size"] = len(finding["images"])
        finding["images"] = finding["images"][:SHOWN_IMAGES]
        finding["message"] = finding["problem"]
        for image, twin in zip(finding["images"], finding.pop("twins"), strict=False):
            pair = [f"{name} ({split})" for split, name, _ in (image.values(), twin.values())]
            image.update(name=" = ".join(pair), split=None)
