"""Studies: folders with ``study.json`` and several runs, continued after an interruption."""

from __future__ import annotations

import itertools
import json
import shutil
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lamina.errors import LaminaWarning, RunError
from lamina.files import damaged, lock_folder, read_object, write_json
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.differences import compare_records
from lamina.runs.folder import STUDY_FILE
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import OwnModule
from lamina.runs.run import Run
from lamina.runs.start import describe_record, making_runs
from lamina.studies.experiment import Candidate, Deadline, Experiment
from lamina.studies.setup import RunSetup, iter_candidate, train_candidate
from lamina.studies.study_events import Started
from lamina.training.custom import Parts
from lamina.training.lanes import check_alone
from lamina.training.loop import Training
from lamina.training.task import task_of
from lamina.values import from_json_values

COMPARED = (
    *("net", "own_module", "timm", "parameters", "recipe", "data.fingerprint"),
    *("parts.loss", "parts.optimizer", "parts.augment", "parts.schedule"),
)
"""Prefixes of the values that a run shares with its experiment. Metrics do not affect the
training."""
Stored = TypeVar("Stored")


@dataclass
class OpenStudy:
    """A locked study: what is stored, and the time that its calls have used so far."""

    path: Path
    state: dict[str, Any]
    opened: float = field(default_factory=time.perf_counter)

    @property
    def used_seconds(self) -> float:
        """The seconds of this call since the study was opened, and of all calls before."""
        before: float = self.state.get("used_seconds", 0.0)
        return before + time.perf_counter() - self.opened

    def save(self, **values: Any) -> None:
        """Store values, and the time used so far."""
        self.state |= {**values, "used_seconds": self.used_seconds}
        self.opened = time.perf_counter()
        write_json(self.path / STUDY_FILE, self.state)


@contextmanager
def open_study(path: Path, settings: Mapping[str, Any]) -> Iterator[OpenStudy]:
    """Lock a study; ``RunError`` if it has other settings. Without runs, it leaves no folder."""
    check_alone("A study")
    if not read_study(path) and any(path.glob("[!.]*")):  # a kill may leave an empty folder
        raise RunError(f"{path} exists, but is not a study. Choose another name.")
    with making_runs(path.parent):
        path.mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        if _is_unused(path):
            write_json(path / STUDY_FILE, {"settings": settings})
        study = OpenStudy(path, read_study(path))
        _check_settings(study, settings)
        try:
            yield study
        finally:
            with suppress(OSError):  # an error that ends the study is more important
                study.save()
            if _is_unused(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_unused(path: Path) -> bool:
    """Whether a study's folder has no content but its settings."""
    return {file.name for file in path.glob("[!.]*")} <= {STUDY_FILE}


def _check_settings(study: OpenStudy, settings: Mapping[str, Any]) -> None:
    present = json.loads(json.dumps(settings))
    stored = study.state["settings"]
    changed = [key for key in present | stored if present.get(key) != stored.get(key)]
    if changed:
        raise RunError(
            f"{study.path} exists, with other {' and '.join(changed)}. Choose another name, or"
            " delete that folder."
        )


def iter_runs(
    folder: Path, plans: Iterable[tuple[str, Experiment]], setup: RunSetup
) -> Generator[RunEvent, None, list[Run]]:
    """Train experiments in folders of these names; skip finished runs, resume unfinished ones.

    ``RunError`` if a run belongs to another experiment; ``NotFiniteError`` ends the iteration.
    """
    runs = []
    for name, experiment in plans:
        candidate = Candidate(experiment, min(experiment.dataset.train.shape[1:]))
        run = yield from iter_planned(candidate, None, setup.at(folder / name))
        runs.append(run)
    return runs


def iter_planned(
    candidate: Candidate, deadline: Deadline | None, setup: RunSetup
) -> Generator[RunEvent, None, Run]:
    """Train a run of a study, resume it, or load it if it is finished."""
    path = setup.path
    if not (path / "run.json").exists():
        return (yield from iter_candidate(candidate, deadline, setup))
    run = load_planned(path, candidate.experiment, setup.parts)
    yield Started(run)
    if run.report is None or not run.is_finished:
        yield from train_candidate(run, candidate, deadline, setup)
    return run


def load_planned(path: Path, experiment: Experiment, parts: Parts) -> Run:
    """Load a run of a study; ``RunError`` if it belongs to another experiment."""
    run = load_run(path)
    choice = experiment.net
    recipe = experiment.recipe
    dataset = experiment.dataset
    make = partial(choice.make, recipe.seed, dataset.train.shape, task_of(dataset.train).outputs)
    training = Training(make(), dataset.train, recipe, parts=parts)
    planned = describe_record(training, dataset, choice, parts)
    changes = []
    for change in compare_records(run.record, planned):
        if change.what == "own_module.digest":
            changes.append("the file of the net has changed")
        elif change.what.startswith(COMPARED):
            changes.append(f"{change.what} is {change.first}, not {change.second}")
    if changes:
        raise RunError(
            f"The run {path} already exists, with other settings: {'; '.join(changes)}. Choose"
            " another name, or delete that folder."
        )
    module = None if run.record.own_module is None else make()
    return replace(run, dataset=dataset, module=module, parts=parts)


def read_study(path: Path) -> dict[str, Any]:
    """The content of ``study.json``; empty for a new study, or if another program wrote it."""
    file = path / STUDY_FILE
    state = read_object(file) if file.exists() else {}
    return state if isinstance(state.get("settings"), dict) else {}


def parse_event(kind: type[Stored], stored: Mapping[str, Any], file: Path) -> Stored:
    """A value of this class that was written to a file; ``RunError`` if it is damaged."""
    names = [field.name for field in fields(kind) if field.name in stored]  # type: ignore[arg-type]
    try:
        return from_json_values(kind, {name: stored[name] for name in names}, "result")
    except ValueError as error:
        raise damaged(str(file), error) from error


def name_study(runs_dir: Path, what: str, settings: Mapping[str, Any] | None = None) -> str:
    """The name of the latest study with the same ``settings`` that lamina named, or a free one."""
    files = []
    if settings is not None:
        files = list(runs_dir.glob(f"20??-??-??-{what}-*/{STUDY_FILE}"))
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            if read_study(file.parent).get("settings") == settings:
                return file.parent.name
        except RunError as error:
            warnings.warn(f"{error} It was skipped.", LaminaWarning, stacklevel=2)
    return name_free(runs_dir, what)


def name_free(runs_dir: Path, what: str) -> str:
    """A name of today that no run or study has, nor a study's runs beside each other."""
    today = f"{datetime.now(UTC):%Y-%m-%d}-{what}"
    for number in itertools.count(1):
        name = f"{today}-{number}"
        if not (runs_dir / name).exists() and not list(runs_dir.glob(f"{name}-seed*")):
            break
    return name


def describe_experiments(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """A study's settings: its experiments, the last of which is the reference, and their data."""
    dataset = next(iter(experiments.values())).dataset
    described = []
    for name, experiment in experiments.items():
        choice = experiment.net
        net = choice.net if isinstance(choice.net, Net) else choice.name
        recipe = repr(replace(experiment.recipe, device="auto"))
        file = digest_file(choice)
        described.append({"name": name, "net": str(net), "recipe": recipe, "file": file})
    return {"experiments": described, "data": f"{dataset.name} ({dataset.fingerprint})"}


def without_device(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe that a study has on every machine."""
    return {name: value for name, value in settings.items() if name != "device"}


def digest_file(choice: NetChoice) -> str | None:
    """The digest of the Python file that defines a net; ``None`` if none does."""
    return choice.origin.digest or None if isinstance(choice.origin, OwnModule) else None
