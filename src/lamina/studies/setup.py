"""Where runs are stored, and how they are trained."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.data.images import Progress
from lamina.runs.continuing import StartingPoint
from lamina.runs.course import RunEvent
from lamina.runs.overview import describe_recipe
from lamina.runs.processes import by_leader
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.studies.experiment import Candidate, Deadline, Experiment
from lamina.studies.study_events import RecipeDecision, Started
from lamina.training.custom import NO_PARTS, Parts

LEAST_TRAINING_SECONDS = 1.0  # a training has this time also if its limit is over


@dataclass(frozen=True)
class RunSetup:
    """Where runs are stored, and how they are trained; see ``start_run`` and ``Run.iter_train``."""

    runs_dir: Path = Path("runs")
    name: str | None = None
    command: tuple[str, ...] = ()  # words of the command line, for the records
    parts: Parts = NO_PARTS
    start_from: StartingPoint | None = None
    save_every_seconds: float = 60.0
    rewind_on_nan: bool | None = None
    on_diagnosis: str = "continue"
    finish: threading.Event | None = None
    progress: Progress | None = None  # of images that are resized

    @property
    def path(self) -> Path:
        """The folder of a run with a name."""
        return self.runs_dir / (self.name or "")

    def at(self, folder: Path) -> RunSetup:
        """This setup for a run in ``folder``."""
        return replace(self, runs_dir=folder.parent, name=folder.name)

    def start(self, experiment: Experiment) -> Run:
        """Create the folder of a new run."""
        run = start_run(
            experiment.dataset,
            experiment.net,
            experiment.recipe,
            parts=self.parts,
            start_from=self.start_from,
            name=self.name,
            runs_dir=self.runs_dir,
        )
        if self.command:
            by_leader(lambda: run.folder.change_record(command=self.command))
        return run

    def iter_train(
        self, run: Run, *, until: float | None = None, is_open: bool = False
    ) -> Generator[RunEvent, None, None]:
        """Train a run to its end, or until the time limit."""
        return run.iter_train(
            until=until,
            is_open=is_open,
            finish=self.finish,
            save_every_seconds=self.save_every_seconds,
            rewind_on_nan=self.rewind_on_nan,
            on_diagnosis=self.on_diagnosis,
        )


def iter_candidate(
    candidate: Candidate,
    deadline: Deadline | None,
    setup: RunSetup,
    considered: Sequence[Considered] = (),
) -> Generator[RunEvent, None, Run]:
    """Start a run of a candidate, and train it before the deadline; returns the run."""
    yield RecipeDecision("recipe", describe_recipe(candidate.recipe, is_open=candidate.is_open))
    run = setup.start(candidate.experiment)
    if considered:
        run.folder.change_record(considered=tuple(considered))
    yield Started(run, candidate)
    yield from train_candidate(run, candidate, deadline, setup)
    return run


def train_candidate(
    run: Run, candidate: Candidate, deadline: Deadline | None, setup: RunSetup
) -> Generator[RunEvent, None, None]:
    """Train a candidate's run to its end, or so that its evaluation ends before the deadline."""
    until = None
    if deadline is not None:
        seconds = deadline.seconds_left() - candidate.ending_seconds()
        until = time.perf_counter() + max(LEAST_TRAINING_SECONDS, seconds)
    yield from setup.iter_train(run, until=until, is_open=candidate.is_open)


def remove_run(path: Path) -> None:
    """Remove a run's folder, hidden first, so that a partial folder is never listed."""
    hidden = path.rename(path.with_name(f".{path.name}-{secrets.token_hex(4)}"))
    shutil.rmtree(hidden, ignore_errors=True)
