"""Runs that exist: found by folder or name, with what a run cannot store."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lamina.errors import LaminaError, LaminaWarning, RunError, check_type
from lamina.nets import Net
from lamina.runs.processes import check_place, lead_record
from lamina.runs.run import Run
from lamina.runs.run_folder import RunFolder, find_run, resolve_run
from lamina.training.group import Group
from lamina.training.parts import OwnAugment, OwnLoss, OwnMetrics, OwnOptimizer, OwnSchedule, Parts
from lamina.values import explain_call


@dataclass(frozen=True)
class DamagedRun:
    """A folder that cannot be read as a run, and why."""

    path: Path
    problem: str


@explain_call
def load_run(
    path: str | Path,
    *,
    runs_dir: str | Path = "runs",
    module: Net | nn.Module | None = None,
    loss: OwnLoss | None = None,
    optimizer: OwnOptimizer | None = None,
    augment: OwnAugment | None = None,
    schedule: OwnSchedule | None = None,
    metrics: OwnMetrics = (),
) -> Run:
    """The run in a folder, or of a name in ``runs_dir``, with what a run cannot store, as ``start_run`` was given it.

    Args:
        path: the folder, or the name.
        runs_dir: where runs are looked for by name.
        module: your own module, or net with layers of your own, made anew, for a run that has one.
        loss: to resume a run with a loss of your own, that function; predictions need none of these.
        optimizer: likewise.
        augment: likewise.
        schedule: likewise.
        metrics: likewise; also for :meth:`Run.evaluate`.

    Raises:
        RunError: there is none, or its ``run.json`` is damaged or of another format.
        RecipeError: one of the functions is none.
    """
    check_type(path, (str, Path), "path", "the folder or name of a run", is_optional=False)
    if path == "":
        raise RunError("path is empty. Give the folder or name of a run.")
    path = find_run(Path(path), Path(runs_dir))
    parts = Parts(loss, optimizer, augment, schedule, metrics)
    return Run(path, RunFolder(path).read_record(), module=module, parts=parts)


def share_run(path: str | Path, group: Group) -> Run:
    """The run in a folder that the leader has, for all processes; errors as for :func:`load_run`."""
    place = resolve_run(Path(path), Path("runs"))
    check_place(place, group)
    return Run(place, lead_record(group, lambda: load_run(place).record))


@explain_call
def list_runs(folder: str | Path = "runs") -> list[Run]:
    """The runs in a folder, oldest first.

    Warns:
        LaminaWarning: a folder in it cannot be read as a run, and is left out.

    Raises:
        RunError: there is no such folder.
    """
    check_type(folder, (str, Path), "folder", "the folder of the runs", is_optional=False)
    if not Path(folder).is_dir():
        raise RunError(f"There is no folder {folder}. Give the one that start_run was given as runs_dir.")
    runs, damaged_runs = find_runs(folder)
    for damaged in damaged_runs:
        warnings.warn(f"Left out a run that is damaged: {damaged.problem}", LaminaWarning, stacklevel=3)
    return runs


def find_runs(folder: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """The runs in a folder, oldest first, and the damaged ones; none if the folder does not exist."""
    runs: list[Run] = []
    damaged_runs: list[DamagedRun] = []
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(load_run(path))
            except LaminaError as error:
                damaged_runs.append(DamagedRun(path, str(error)))
    return sorted(runs, key=lambda run: run.record.created), damaged_runs
