"""Jobs: lamina commands as processes. Trainings wait for each other; others start at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
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

from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.kept_checkpoints import keep_checkpoint
from lamina.deploy.web.guard import without_token
from lamina.errors import RunError

State = Literal["queued", "running", "done", "stopped", "failed"]
LABELS = "--labels-from="
WITH_PROGRESS = ("train", "resume", "data")
LINE_BYTES = 2**30  # at most; lamina data lists all duplicates in one line
SHOWN_IMAGES = 20  # of a finding about data; the command lists all
NICENESS = 5  # of all commands but trainings
# exit status on request
STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
SHOWN = (
    "number", "run", "state", "problem", "began", "is_stopping", "is_finishing", "seconds",
    "chooses_net", "checked", "label_issues",
)  # fmt: skip
INVALID = 2  # exit status for invalid input
MOST_AT_ONCE = 2  # commands that do not train
END_SECONDS = 60.0  # for a training to save itself when the studio ends


@dataclass(eq=False)
class Job:
    """A command, without the word ``lamina``, and what became of it."""

    number: int
    words: tuple[str, ...]
    run: str = ""  # name of the run that it trains
    is_training: bool = False
    state: State = "queued"
    problem: str = ""
    began: float = 0.0  # when it started to run, in seconds since 1970
    is_stopping: bool = False
    is_finishing: bool = False
    has_mark: bool = False  # which reserves the name of its run
    process: Process | None = field(default=None, repr=False)
    seconds: float | None = None  # the time limit of a training
    chooses_net: bool = False
    checked: dict[str, Any] | None = None  # the data set whose labels it checks
    label_issues: list[dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in SHOWN}
        return {"event": "job", "command": shlex.join(["lamina", *self.words]), **values}


@dataclass(eq=False)
class Jobs:
    """All jobs of the studio; their events go to ``log``."""

    runs_dir: Path
    log: EventLog
    jobs: list[Job] = field(default_factory=list)
    is_closing: bool = False
    # Microseconds, so that a page does not take the jobs of a studio that was started again for its
    # own.
    _numbers: itertools.count[int] = field(
        default_factory=lambda: itertools.count(time.time_ns() // 1000)
    )
    # one training at a time, in order of arrival
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(
        self, words: Sequence[str], run: str = "", *, is_training: bool = False, **more: Any
    ) -> Job:
        """Queue a command, which starts when no other one trains, or few others run."""
        if self.is_closing:
            self._remove_mark(run)
            raise RunError("The studio is ending in its terminal. Start lamina studio again.")
        job = Job(next(self._numbers), tuple(words), run, is_training, has_mark=bool(run), **more)
        self.jobs.append(job)
        self._announce(job)
        task = asyncio.create_task(self._wait_and_run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._release(job))
        return job

    def reserve(self, run: str) -> bool:
        """Reserve a run's name until its training ends; ``False`` if another studio has it."""
        mark = self.runs_dir / f".{run}"
        try:
            mark.mkdir(parents=True)
        except OSError:  # if there is no mark, the training says why it cannot write there
            return not mark.exists()
        return True

    def _release(self, job: Job) -> None:
        """Free the name that a job has reserved."""
        if job.has_mark:
            job.has_mark = False
            self._remove_mark(job.run)

    def _remove_mark(self, run: str) -> None:
        if run:
            with suppress(OSError):
                (self.runs_dir / f".{run}").rmdir()

    def find_active(self, run: str, number: int | None = None) -> Job | None:
        """The job in progress that has a number, or that trains a run."""
        for job in self.jobs:
            is_meant = job.number == number or (run != "" and job.run == run)
            if job.is_active and is_meant:
                return job
        return None

    def stop(self, job: Job, *, is_finishing: bool = False) -> None:
        """Ask a command to save and end.

        With ``is_finishing``, the learning rate falls first, and the run is evaluated.
        """
        if is_finishing and job.is_stopping:  # a second signal would end it before it has saved
            return
        job.is_finishing, job.is_stopping = is_finishing, True
        if job.state == "queued":
            job.state = "stopped"
            self._release(job)
        elif job.process is not None:
            with suppress(ProcessLookupError):
                job.process.send_signal(signal.SIGINT if is_finishing else signal.SIGTERM)
        self._announce(job)

    async def close(self) -> list[str]:
        """Stop all commands; returns what became of the trainings among them, in sentences."""
        self.is_closing = True
        active = [job for job in self.jobs if job.is_active]
        for job in active:
            self.stop(job)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        return [self._describe_end(job) for job in active if job.run]

    def _describe_end(self, job: Job) -> str:
        resume = (
            "press Continue in the studio, or run lamina resume"
            f" {shlex.quote(str(self.runs_dir / job.run))}"
        )
        if job.is_active:
            return (
                f"{job.run} is still being saved by its own process; when that has ended, {resume}"
            )
        if not (self.runs_dir / job.run / "run.json").exists():
            return f"{job.run} had not begun; to train it, run {shlex.join(['lamina', *job.words])}"
        return (
            f"{job.run}: {job.problem}"
            if job.problem
            else f"{job.run} is saved; to continue it, {resume}"
        )

    async def _wait_and_run(self, job: Job) -> None:
        async with self._turn if job.is_training else self._places:
            await self._run(job)

    async def _run(self, job: Job) -> None:
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
        if status == 0:
            job.state = "done"
            job.problem = ""
        elif job.is_stopping and status in STOPPED:
            job.state = "stopped"
            job.problem = ""
        elif status == INVALID and job.problem:  # the message of its error
            job.state = "failed"
        else:
            job.state = "failed"
            job.problem = f"The process ended with status {status}. {last}"
            if job.run and (self.runs_dir / job.run / "run.json").exists():
                saved = "The run is saved up to its last checkpoint; press Continue."
                job.problem = f"The process ended with status {status}. {saved}"

    async def _execute(self, job: Job) -> tuple[int, str]:
        """Run the command, pass on its events; returns exit status and last line on stderr."""
        # Corrections that were undone while the command waited no longer apply.
        words = [word for word in job.words if not _names_missing_labels(word)]
        if job.words[0] in WITH_PROGRESS:
            words.append("--progress")
        job.process = process = await asyncio.create_subprocess_exec(
            *(() if job.is_training or os.name == "nt" else ("nice", "-n", str(NICENESS))),
            sys.executable,
            "-P",  # import no modules from the current folder
            *("-m", "lamina", *words, "--json"),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C reaches only the studio, which then stops its commands
            env=without_token(),
        )
        if job.is_stopping:  # while the process was created
            process.terminate()
        job.state, job.began = "running", time.time()
        self._announce(job)
        _, last = await asyncio.gather(
            self._read_events(job, process), self._read_remarks(job, process)
        )
        return await process.wait(), last

    async def _read_events(self, job: Job, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101
        async for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a process that was killed leaves half a line
            if not isinstance(event, dict) or "event" not in event:
                continue
            if event["event"] == "epoch" and job.run:
                await asyncio.to_thread(keep_checkpoint, self.runs_dir / job.run)
            if event["event"] == "error":
                job.problem = event["error"]
                continue
            if event["event"] == "labels":
                job.label_issues = event["label_issues"]  # for pages that open later
                continue
            for finding in event.get("findings", ()):
                finding |= {
                    name: finding.get(name, [])[:SHOWN_IMAGES] for name in ("images", "twins")
                }
            event.pop("duplicates", None)
            self.log.add(event | {"job": job.number, "run": job.run})

    async def _read_remarks(self, job: Job, process: Process) -> str:
        """Pass on the lines on stderr; returns the last one, the reason if the process crashed."""
        text = ""
        assert process.stderr is not None  # noqa: S101
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            if text:
                self.log.add({"event": "remark", "text": text, "job": job.number, "run": job.run})
        return text

    def _announce(self, job: Job) -> None:
        self.log.add(job.to_json())


def _names_missing_labels(word: str) -> bool:
    """Whether an option names a table of labels that does not exist."""
    return word.startswith(LABELS) and not Path(word.removeprefix(LABELS)).is_file()
