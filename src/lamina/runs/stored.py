"""Loading of existing runs, by folder or name."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lamina.errors import LaminaError, LaminaWarning, RunError, check_type
from lamina.nets import Net
from lamina.runs.run import Run
from lamina.runs.run_folder import STUDY_FILE, RunFolder, find_run
from lamina.training.parts import NO_PARTS, Parts, check_parts_type


@dataclass(frozen=True)
class DamagedRun:
    """A folder that cannot be loaded as a run, and why."""

    path: Path
    problem: str


def load_run(
    path: str | Path,
    *,
    runs_dir: str | Path = "runs",
    module: Net | nn.Module | None = None,
    parts: Parts = NO_PARTS,
) -> Run:
    """Load a run.

    Args:
        path: Folder or name of the run.
        runs_dir: Folder to search for names.
        module: Your own module, or net with your own layers, newly created, if the run was started
            with one.
        parts: Your own functions, to resume a run that was started with them. Predictions do not
            need them, and :meth:`Run.evaluate` only the metrics.

    Returns:
        The run, to resume, evaluate or predict.

    Raises:
        RunError: There is no such run, or its ``run.json`` is damaged or has another format.
        RecipeError: ``parts`` is no :class:`~lamina.Parts`.

    >>> import tempfile
    >>> from lamina import Recipe, start_run
    >>> folder = tempfile.mkdtemp()
    >>> path = start_run("shapes", "mlp", Recipe(epochs=1), runs_dir=folder, name="first").path
    >>> load_run("first", runs_dir=folder).path == path
    True
    """
    check_type(path, (str, Path), "path", "the folder or name of a run", is_optional=False)
    expected = "your own module, or a net with your own layers"
    check_type(module, (Net, nn.Module), "module", expected)
    check_parts_type(parts)
    if path == "":
        raise RunError("path is empty. Give the folder or name of a run.")
    try:
        path = find_run(Path(path), Path(runs_dir))
    except (
        OSError
    ) as error:  # before Python 3.12 for closed folders, and for a name that is too long
        reason = (error.strerror or str(error)).lower()
        raise RunError(
            f"Cannot use {str(path)[:100]}: {reason}. Check the path and its permissions."
        ) from None
    return Run(path, RunFolder(path).read_record(), module=module, parts=parts)


def list_runs(folder: str | Path = "runs") -> list[Run]:
    """Load all runs in a folder.

    Args:
        folder: Folder of the runs.

    Returns:
        The runs, oldest first.

    Warns:
        LaminaWarning: A subfolder cannot be loaded as a run and is skipped.

    Raises:
        RunError: The folder does not exist.

    >>> import tempfile
    >>> list_runs(tempfile.mkdtemp())
    []
    """
    check_type(folder, (str, Path), "folder", "the folder of the runs", is_optional=False)
    if not Path(folder).is_dir():
        raise RunError(
            f"There is no folder {folder}. Use the runs_dir of start_run, by default runs."
        )
    runs, damaged_runs = find_runs(folder)
    for damaged in damaged_runs:
        warnings.warn(f"Skipped a damaged run: {damaged.problem}", LaminaWarning, stacklevel=3)
    return runs


def find_runs(folder: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """The runs in a folder, oldest first, and the damaged ones; none if it does not exist."""
    runs: list[Run] = []
    damaged_runs: list[DamagedRun] = []
    tops = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    for path in (
        one for top in tops for one in (top.iterdir() if (top / STUDY_FILE).exists() else [top])
    ):
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(load_run(path))
            except LaminaError as error:
                damaged_runs.append(DamagedRun(path, str(error)))
    return sorted(runs, key=lambda run: run.record.created), damaged_runs
