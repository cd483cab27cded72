"""Studies: folders with ``study.json`` and several runs, continued after an interruption."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from lamina.data.images import Images, Progress
from lamina.errors import RunError, escape, warn
from lamina.evaluation.report import Report
from lamina.files import damaged, lock_folder, read_object, write_json
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.differences import compare_records
from lamina.runs.folder import STUDY_FILE
from lamina.runs.progress import show_progress
from lamina.runs.record import Considered, OwnModule
from lamina.runs.run import Run, describe_start, digest_module, list_needed_parts, load_run
from lamina.runs.run import describe_recipe as recipe_in_words
from lamina.runs.start import NetChoice, Place, Start, create_run, describe_record, making_runs
from lamina.studies.experiment import (
    LEAST_TRAINING_SECONDS,
    TRAINING,
    Candidate,
    Deadline,
    Decision,
    Events,
    Experiment,
    Result,
)
from lamina.training.custom import Parts
from lamina.training.events import Diagnosis, Epoch, Event, Resumed
from lamina.training.lanes import check_alone
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from lamina.training.threads import (
    choose_threads,
    iter_computing_with,
    measure_share,
)
from lamina.values import from_json_values

LEAST_SHARE = 0.1  # of a core; with less, a run may not end in time
COMPARED = (
    *("net", "own_module", "timm", "parameters", "recipe", "data.fingerprint"),
    *(f"parts.{name}" for name in TRAINING),
)
"""Prefixes of the values that a run shares with its experiment. Metrics do not affect the
training."""
LOCK_FILE = ".lock"  # of ``lock_folder``
CODE = "code"  # the setting of a study with the digests of the source of custom code
Stored = TypeVar("Stored")


@dataclass(frozen=True)
class RecipeDecision(Decision):
    """The recipe of a run."""


@dataclass(frozen=True)
class ThreadsDecision(Decision):
    """The number of threads of a run."""


@dataclass(frozen=True)
class Started(Event):
    """The start of a run, before its events.

    Attributes:
        run: The run.
        candidate: What is trained, and its pace; ``None`` for a run that was started earlier.
    """

    run: Run
    candidate: Candidate | None = None

    def to_json(self) -> dict[str, Any]:
        """``run`` is its folder; also ``net``, ``parameters``, ``device`` and ``precision``."""
        record = self.run.record
        return {
            "event": "started",
            "run": str(self.run.path),
            "net": record.net_name,
            "parameters": record.parameters,
            "device": record.device.value,
            "precision": record.precision.value,
        }

    def __str__(self) -> str:
        return "\n".join([*describe_start(self.run), f"run: {escape(str(self.run.path))}"])


def is_about_run(event: object) -> bool:
    """Whether an event with a line of its own is about a single run, and not about a study."""
    about_run = RecipeDecision | ThreadsDecision | Started | Resumed | Epoch | Diagnosis | Report
    return isinstance(event, about_run)


def follow_study(events: Iterable[RunEvent], progress: bool) -> None:
    """Play the events of a study; with ``progress``, print those that are not about a run."""
    if progress:
        about_study = (event for event in events if not is_about_run(event))
        events = show_progress(about_study)
    for _ in events:
        pass


@dataclass(frozen=True)
class RunSetup:
    """Where runs are stored, and how they are trained; see ``start_run`` and ``Run.iter_train``."""

    runs_dir: Path = Path("runs")
    name: str | None = None
    command: tuple[str, ...] = ()  # words of the command line, for the records
    start_from: Start | None = None
    finish: threading.Event | None = None
    progress: Progress | None = None  # of images that are resized
    jobs: int | None = None  # runs to train at once (``Jobs``)

    @property
    def path(self) -> Path:
        """The folder of a run with a name."""
        return self.runs_dir / (self.name or "")

    def at(self, folder: Path) -> RunSetup:
        """This setup for a run in ``folder``."""
        return replace(self, runs_dir=folder.parent, name=folder.name)


def on_all_cores(events: Events[Result], *, has_time_limit: bool = False) -> Events[Result]:
    """The events, computed on all cores; with a time limit, on those that are idle."""
    threads = choose_threads(has_time_limit=has_time_limit)
    if threads.reason:
        yield ThreadsDecision("threads", str(threads), threads.reason)
    return (yield from iter_computing_with(threads.number, events))


def iter_candidate(
    candidate: Candidate,
    deadline: Deadline | None,
    setup: RunSetup,
    considered: Sequence[Considered] = (),
) -> Events[Run]:
    """Start a run of a candidate, and train it before the deadline; returns the run."""
    yield RecipeDecision("recipe", recipe_in_words(candidate.recipe, is_open=candidate.is_open))
    experiment = candidate.experiment
    run = create_run(
        experiment.dataset,
        experiment.net,
        experiment.recipe,
        experiment.parts,
        setup.start_from,
        Place(setup.runs_dir, setup.name, setup.command, tuple(considered)),
    )
    yield Started(run, candidate)
    yield from train_candidate(run, candidate, deadline, setup)
    return run


def train_candidate(
    run: Run, candidate: Candidate, deadline: Deadline | None, setup: RunSetup
) -> Events[None]:
    """Train a candidate's run to its end, or so that its evaluation ends before the deadline."""
    until = None
    if deadline is not None:
        share = max(LEAST_SHARE, measure_share())
        evaluating = candidate.evaluating_seconds()  # measured beside the other programs, too
        ending = evaluating + (candidate.ending_seconds() - evaluating) / share
        seconds = deadline.seconds_left() - ending
        until = time.perf_counter() + max(LEAST_TRAINING_SECONDS / share, seconds)
    yield from run.iter_train(until=until, is_open=candidate.is_open, finish=setup.finish)


def iter_planned(candidate: Candidate, deadline: Deadline | None, setup: RunSetup) -> Events[Run]:
    """Train a run of a study; resume it if it exists, unless it is finished.

    ``RunError`` if the run belongs to another experiment.
    """
    path = setup.path
    if not (path / "run.json").exists():
        return (yield from iter_candidate(candidate, deadline, setup))
    run = load_planned(candidate, setup)
    yield Started(run)
    if run.report is None or not run.is_finished:
        yield from train_candidate(run, candidate, deadline, setup)
    return run


def load_planned(candidate: Candidate, setup: RunSetup) -> Run:
    """Load a run of a study; ``RunError`` if it belongs to another experiment."""
    run = load_run(setup.path)
    experiment = candidate.experiment
    parts = experiment.parts
    dataset = experiment.dataset
    training = Training(candidate.make(), dataset.train, candidate.recipe, parts=parts)
    planned = describe_record(training, dataset, experiment.net, parts)
    changes = []
    for change in compare_records(run.record, planned):
        if change.what == "own_module.digest":
            changes.append("the code of the net has changed")
        elif change.what.startswith(tuple(f"code.{name}" for name in TRAINING)):
            changes.append(f"the source of {change.what.removeprefix('code.')} has changed")
        elif change.what.startswith(COMPARED):
            changes.append(f"{change.what} is {change.first}, not {change.second}")
    if changes:
        raise RunError(
            f"The run {run.path} already exists, with different settings: {'; '.join(changes)}."
            " Choose another name, or delete that folder."
        )
    module = None if run.record.own_module is None else candidate.make()
    return replace(run, dataset=dataset, module=module, parts=parts)


@dataclass
class OpenStudy:
    """A locked study, and what is stored."""

    path: Path
    state: dict[str, Any]

    def save(self, **values: Any) -> None:
        """Store values."""
        self.state |= values
        write_json(self.path / STUDY_FILE, self.state)


@contextmanager
def open_study(path: Path, settings: Mapping[str, Any]) -> Iterator[OpenStudy]:
    """Lock a study; ``RunError`` if it has other settings. Without runs, it leaves no folder."""
    check_alone("A study")
    if not read_study(path) and _has_content(path):
        raise RunError(f"{path} exists, but is not a study. Choose another name.")
    with making_runs(path.parent):
        path.mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        is_new = not (path / STUDY_FILE).exists()
        if is_new:
            write_json(path / STUDY_FILE, {"settings": settings})
        study = OpenStudy(path, read_study(path))
        check_settings(str(path), study.state.get("settings"), settings)
        if not is_new:
            warn_of_unread(path, settings)
        try:
            yield study
        finally:
            if is_new:
                _remove_unused(path)


def _has_content(path: Path) -> bool:
    """Whether a folder has files; a killed process may leave its lock."""
    return path.is_dir() and any(file.name != LOCK_FILE for file in path.iterdir())


def _remove_unused(path: Path) -> None:
    """Remove the folder of a locked study that has no content but its settings."""
    written = (STUDY_FILE, LOCK_FILE)
    if all(file.name in written for file in path.iterdir()):
        with suppress(OSError):
            for name in written:
                (path / name).unlink(missing_ok=True)
            path.rmdir()


def check_settings(what: str, stored: Any, settings: Mapping[str, Any]) -> None:
    """Raise ``RunError`` if a study, which is called ``what``, has other settings."""
    present = json.loads(json.dumps(settings))
    known = stored if isinstance(stored, Mapping) else {}
    keys = [*present, *(key for key in known if key not in present)]
    changed = [key for key in keys if known.get(key) != present.get(key)]
    if changed:
        problem = f"{what} already exists, with different settings: {', '.join(changed)}."
        if changed == [CODE]:
            stored_code = known.get(CODE, {})
            names = [name for name, code in present[CODE].items() if stored_code.get(name) != code]
            problem = f"The code of {' and '.join(names)} has changed since {what} began."
        raise RunError(
            f"{problem} Choose another name, or run the same command with the same data, files and"
            " functions as before."
        )


def warn_of_unread(path: Path, settings: Mapping[str, Any]) -> None:
    """Warn that changes of some custom code would not be noticed."""
    names = [name for name, digest in settings.get(CODE, {}).items() if not digest]
    if names:
        warn(
            f"lamina cannot notice changes of {' and '.join(names)} since {path} began: lambdas and"
            " functions that are typed in have no source of their own.",
            remedy="Define it with def in a file or a notebook",
        )


def read_study(path: Path) -> dict[str, Any]:
    """The content of ``study.json``; empty for a new study, or if another program wrote it."""
    file = path / STUDY_FILE
    state = read_object(file) if file.exists() else {}
    return state if isinstance(state.get("settings"), dict) else {}


def parse_event(kind: type[Stored], stored: Mapping[str, Any], place: Path | str) -> Stored:
    """A value of this class that was stored at a place; ``RunError`` if it is damaged."""
    names = [field.name for field in fields(kind) if field.name in stored]  # type: ignore[arg-type]
    try:
        return from_json_values(kind, {name: stored[name] for name in names}, "result")
    except ValueError as error:
        raise damaged(str(place), error) from error


def name_study(runs_dir: Path, what: str, settings: Mapping[str, Any]) -> str:
    """A name by the digest of the settings; with custom code, a new name."""
    if settings[CODE]:  # its source does not show all that it depends on
        return name_free(runs_dir, what)
    text = json.dumps(settings, sort_keys=True)
    return f"{what}-{sha256(text.encode()).hexdigest()[:8]}"


def name_free(runs_dir: Path, what: str) -> str:
    """A name with today's date that no run, study or series of seeds has."""
    today = f"{datetime.now().astimezone().date()}-{what}"
    names = (f"{today}-{number}" for number in itertools.count(1))
    return next(
        name
        for name in names
        if not (runs_dir / name).exists() and not list(runs_dir.glob(f"{name}-seed*"))
    )


def describe_experiments(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """A study's settings: its experiments, the last of which is the reference, and their data."""
    dataset = next(iter(experiments.values())).dataset
    described = []
    code = {}
    for name, experiment in experiments.items():
        settings: dict[str, Any] = {"name": name, **describe_net(experiment.net)}
        settings["recipe"] = describe_recipe(experiment.recipe)
        settings["parts"] = list_needed_parts(experiment.parts.describe())
        described.append(settings)
        for part, digest in describe_code(experiment.net, experiment.parts, dataset.train).items():
            if not part.startswith("metrics."):
                code[f"{part} of {name}"] = digest
    data = f"{dataset.name} ({dataset.fingerprint})"
    return {"experiments": described, "data": data, CODE: code}


def describe_code(net: NetChoice | None, parts: Parts, images: Images) -> dict[str, str]:
    """The digests of the source of custom functions, modules and layers.

    They are empty for code without a source of its own, such as a lambda.
    """
    digests = parts.digest()
    code = {name: digests.get(name, "") for name in parts.functions()}
    if net is None or not isinstance(net.origin, OwnModule) or net.origin.file:
        return code
    if not isinstance(net.net, Net):
        module = net.make(0, images.shape, task_of(images).outputs)
        code["net"] = net.origin.digest and f"{net.origin.digest} {digest_module(module)}".rstrip()
    elif net.net.own_layers:
        code["net"] = digest_module(net.net)
    return code


def describe_net(net: NetChoice | None) -> dict[str, str | None]:
    """A net, and the digest of its file or weights, as settings of a study."""
    if net is None:
        return {"net": None, "file": None}
    text = str(net.net) if isinstance(net.net, Net) else net.name
    digest = getattr(net.origin, "digest", None)
    if isinstance(net.origin, OwnModule) and not net.origin.file:
        digest = None  # ``describe_code`` has its source
    return {"net": text, "file": digest or None}


def describe_recipe(recipe: Recipe | str | None) -> str | None:
    """A recipe without its device, as a setting of a study."""
    return repr(replace(recipe, device="auto")) if isinstance(recipe, Recipe) else recipe


def without_device(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe without the device, which may differ between machines."""
    return {name: value for name, value in settings.items() if name != "device"}
