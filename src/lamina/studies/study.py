"""Studies: folders with ``study.json`` and several runs, continued after an interruption."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from lamina.errors import LaminaWarning, RunError
from lamina.files import damaged, lock_folder, read_bytes, read_object, write_json
from lamina.nets import Net
from lamina.runs.folder import STUDY_FILE
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.record import OwnModule
from lamina.runs.start import making_runs, shorten_net_name
from lamina.studies.experiments import Experiment
from lamina.training.events import Event
from lamina.training.lanes import check_alone
from lamina.values import from_json_values

AnyEvent = TypeVar("AnyEvent", bound=Event)
LONGEST_FOLDER = 40  # characters of an experiment's name in the name of a run


@contextmanager
def open_study(path: Path, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lock a study, and yield its ``study.json``; ``RunError`` if it has other settings."""
    check_alone("A study")
    if not read_study(path) and any(path.glob("[!.]*")):  # a kill may leave an empty folder
        raise RunError(f"{path} exists, but is not a study. Choose another name.")
    with making_runs(path.parent):
        path.mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        if not read_study(path):
            write_json(path / STUDY_FILE, {"settings": settings})
        state = read_study(path)
        given, stored = json.loads(json.dumps(settings)), state["settings"]
        if changed := [key for key in given | stored if given.get(key) != stored.get(key)]:
            raise RunError(
                f"{path} exists, with other {' and '.join(changed)}. Choose another name, or delete"
                " that folder."
            )
        yield state


def read_study(path: Path) -> dict[str, Any]:
    """The content of ``study.json``; empty for a new study, or if another program wrote it."""
    file = path / STUDY_FILE
    state = read_object(file) if file.exists() else {}
    return state if isinstance(state.get("settings"), dict) else {}


def parse_event(kind: type[AnyEvent], stored: Mapping[str, Any], file: Path) -> AnyEvent:
    """The event that ``to_json`` wrote to a file; ``RunError`` if it is damaged."""
    try:
        return from_json_values(
            kind,
            {one.name: stored[one.name] for one in fields(kind) if one.name in stored},
            "result",
        )
    except ValueError as error:
        raise damaged(str(file), error) from error


def name_study(runs_dir: Path, what: str, settings: Mapping[str, Any] | None = None) -> str:
    """The name of the latest study with the same ``settings`` that lamina named, or a free one."""
    files = list(runs_dir.glob(f"20??-??-??-{what}-*/{STUDY_FILE}")) if settings is not None else []
    for file in sorted(files, key=lambda one: one.stat().st_mtime_ns, reverse=True):
        try:
            if read_study(file.parent).get("settings") == settings:
                return file.parent.name
        except RunError as error:
            warnings.warn(f"{error} It was skipped.", LaminaWarning, stacklevel=2)
    names = (f"{datetime.now(UTC):%Y-%m-%d}-{what}-{number}" for number in itertools.count(1))
    return next(name for name in names if not (runs_dir / name).exists())


def describe_experiments(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """A study's settings: its experiments, the last of which is the reference, and their data."""
    dataset = next(iter(experiments.values())).dataset
    nets = {
        name: one.net.net if isinstance(one.net.net, Net) else one.net.name
        for name, one in experiments.items()
    }
    described = [
        {
            "name": name,
            "net": str(nets[name]),
            "recipe": repr(replace(one.recipe, device="auto")),
            "file": digest_file(one.net),
        }
        for name, one in experiments.items()
    ]
    return {"experiments": described, "data": f"{dataset.name} ({dataset.fingerprint})"}


def without_device(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe that a study has on every machine."""
    return {name: value for name, value in given.items() if name != "device"}


def digest_file(choice: NetChoice) -> str | None:
    """The digest of the Python file that defines a net; ``None`` if none does."""
    file = choice.origin.file if isinstance(choice.origin, OwnModule) else ""
    return sha256(read_bytes(Path(file))).hexdigest() if file else None


def locate_run(path: Path, names: Sequence[str], name: str, seed: int) -> Path:
    """The folder of a run in a study of experiments with these names."""
    shortened = shorten_net_name(name)[:LONGEST_FOLDER]
    return path / f"{names.index(name) + 1}-{shortened}-seed{seed}"
