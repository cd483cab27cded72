"""Loading of existing runs, by folder or name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lamina.errors import LaminaError, RunError, check_type, suggest, warn
from lamina.nets import Net
from lamina.runs.folder import STUDY_FILE, WHOLE, RunFolder
from lamina.runs.resuming import check_module_code
from lamina.runs.run import Run
from lamina.training.custom import NO_PARTS, Parts, check_parts_type


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
        The run, which you can resume, evaluate and predict with.

    Warns:
        LaminaWarning: The source of ``module`` has changed since the run was started.

    Raises:
        RunError: There is no such run, or its ``run.json`` is damaged or has another format.
        RecipeError: ``parts`` is not a :class:`~lamina.Parts`.

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
        raise RunError("path is empty. Pass the folder or name of a run.")
    try:
        path = find_run(Path(path), Path(runs_dir))
    # before Python 3.12 for closed folders, and for a name that is too long
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(
            f"Cannot use {str(path)[:100]}: {reason}. Check the path and its permissions."
        ) from None
    run = Run(path, RunFolder(path).read_record(), module=module, parts=parts)
    if module is not None:
        check_module_code(run, module)
    return run


def find_run(path: Path, runs_dir: Path) -> Path:
    """Find a run's folder, by path or name in ``runs_dir``; else ``RunError`` with suggestions."""
    path = _find_folder(path, runs_dir) or path
    if path.is_file():
        folder = "the folder that lamina train wrote"
        if (path.parent / "run.json").exists():
            folder = str(path.parent)
        raise RunError(f"{path} is a file; expected the folder of a run. Use {folder}.")
    if not path.is_dir():
        places = [path.parent] if str(path) != path.name else [Path(), runs_dir]
        where = " or ".join("this folder" if place == Path() else str(place) for place in places)
        known = sorted({file.parent.name for place in places for file in place.glob("*/run.json")})
        others = "No runs were found there. Train one with lamina train."
        if known:
            others = suggest(path.name, known)
        raise RunError(f"No run named {path.name} in {where}. {others}")
    if (path / "run.json").exists():
        return path
    if (path / STUDY_FILE).exists():
        if (path / WHOLE / "run.json").exists():
            return path / WHOLE
        runs = sorted(file.parent for file in path.glob("*/run.json"))
        if runs:
            raise RunError(f"{path} is a study. Use one of its runs, such as {runs[0]}.")
    raise RunError(f"{path} is not a run, because it has no run.json. Use the folder of a run.")


def is_run_or_study(name: str, runs_dir: Path) -> bool:
    """Whether there is a run or a study at this path, or with this name in ``runs_dir``."""
    try:
        return _find_folder(Path(name), runs_dir) is not None
    except OSError:  # the name is too long
        return False


def _find_folder(path: Path, runs_dir: Path) -> Path | None:
    places = [path]
    if str(path) == path.name:
        places.append(runs_dir / path)
    for place in places:
        if (place / "run.json").exists() or (place / STUDY_FILE).exists():
            return place
    return None


def list_runs(folder: str | Path = "runs") -> list[Run]:
    """Load all runs in a folder.

    Args:
        folder: Folder that contains the runs.

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
    check_type(folder, (str, Path), "folder", "a folder that contains runs", is_optional=False)
    if not Path(folder).is_dir():
        raise RunError(
            f"There is no folder {folder}. Use the runs_dir of start_run, by default runs."
        )
    runs, damaged_runs = find_runs(folder)
    for damaged in damaged_runs:
        warn(f"Skipped a damaged run: {damaged.problem}", stacklevel=2)
    return runs


def find_runs(folder: str | Path) -> tuple[list[Run], list[DamagedRun]]:
    """The runs in a folder, oldest first, and the damaged runs; none if it does not exist."""
    folder = Path(folder)
    runs: list[Run] = []
    damaged_runs: list[DamagedRun] = []
    places = [folder, *(file.parent for file in folder.glob(f"[!.]*/{STUDY_FILE}"))]
    files = [file for place in places for file in place.glob("[!.]*/run.json")]
    for path in sorted(file.parent for file in files):
        try:
            runs.append(load_run(path))
        except LaminaError as error:
            damaged_runs.append(DamagedRun(path, str(error)))
    return sorted(runs, key=lambda run: run.record.created), damaged_runs
