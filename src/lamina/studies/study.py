"""Studies: folders with ``study.json`` and several runs, continued after an interruption."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from lamina.data.images import Images, Progress
from lamina.errors import RunError, escape, warn
from lamina.evaluation.report import Report
from lamina.files import damaged, lock_folder, read_object, write_json
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.folder import STUDY_FILE
from lamina.runs.progress import show_progress
from lamina.runs.record import Considered, OwnModule
from lamina.runs.run import Run, describe_start, digest_module, list_needed_parts, load_run
from lamina.runs.run import describe_recipe as recipe_in_words
from lamina.runs.start import NetChoice, Place, Start, create_run, making_runs
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
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from lamina.training.threads import (
    choose_threads,
    iter_computing_with,
    measure_share,
)
from lamina.values import from_json_values

LEAST_SHARE = 0.1  # of a core; with less, a run may not end in time
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
        run: The run; in a study, without its data set, your own module and functions.
    """

    run: Run

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
    jobs: int | None = None  # runs to train at once (``iter_runs``)
    considered: tuple[Considered, ...] = ()  # nets that the recorded choice is from

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
    yield Started(run)
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


def iter_planned(
    experiment: Experiment, setup: RunSetup, seconds: float | None = None
) -> Events[Run]:
    """Train a run of a study, from its checkpoint if it has one; ``seconds`` are its time limit."""
    candidate = Candidate.of(experiment)
    deadline = None
    if seconds is not None:
        deadline = Deadline(time.perf_counter(), seconds)
        candidate = candidate.time()
    if not (setup.path / "run.json").exists():
        return (yield from iter_candidate(candidate, deadline, setup, setup.considered))
    run = load_run(setup.path)
    module = None if run.record.own_module is None else candidate.make()
    run = replace(run, dataset=experiment.dataset, module=module, parts=experiment.parts)
    yield Started(run)
    yield from train_candidate(run, candidate, deadline, setup)
    return run


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


def name_study(what: str, settings: Mapping[str, Any]) -> str:
    """A name by the digest of the settings; with custom code, a new name."""
    if settings[CODE]:  # its source does not show all that it depends on
        return f"{what}-{secrets.token_hex(4)}"
    text = json.dumps(settings, sort_keys=True)
    return f"{what}-{sha256(text.encode()).hexdigest()[:8]}"


def describe_experiments(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """A study's settings: its experiments, the last of which is the reference, and their data."""
    dataset = next(iter(experiments.values())).dataset
    described = []
    code: dict[str, str] = {}
    for name, experiment in experiments.items():
        settings: dict[str, Any] = {"name": name, **describe_net(experiment.net)}
        settings["recipe"] = describe_recipe(experiment.recipe)
        settings["parts"] = list_needed_parts(experiment.parts.describe())
        described.append(settings)
        metric = experiment.recipe.metric
        digests = describe_code(experiment.net, experiment.parts, dataset.train, metric)
        code |= {f"{part} of {name}": digest for part, digest in digests.items()}
    data = f"{dataset.name} ({dataset.fingerprint})"
    return {"experiments": described, "data": data, CODE: code}


def describe_code(
    net: NetChoice | None, parts: Parts, images: Images, metric: str | None
) -> dict[str, str]:
    """The digests of the source of custom functions, modules and layers.

    They are empty for code without a source of its own, such as a lambda. Of the metrics, only the
    one that is the score decides a result.
    """
    digests = parts.digest()
    code = {
        name: digests.get(name, "")
        for name in parts.functions()
        if name in (*TRAINING, f"metrics.{metric}")
    }
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
