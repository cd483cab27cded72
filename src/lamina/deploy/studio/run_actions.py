"""The actions of the page on runs and their results."""

from __future__ import annotations

from typing import Any

from lamina.deploy.studio.services import Actions, Image, Studio, on_run
from lamina.errors import RunError

# in a run, made by these commands, and downloaded
MADE_FILES = {"report.html": "report", "model.onnx": "export"}


async def list_runs(studio: Studio) -> Any:
    """All runs, the newest first."""
    return await studio.compute_quickly("run_views.list_runs", studio.data.runs_dir)


async def describe_run(studio: Studio, run: str) -> Any:
    """A run with its history, net and recipe."""
    studio.find_run(run)
    return await studio.compute_quickly("run_views.describe_run", studio.data.runs_dir, run)


async def compare(studio: Studio, run: str, others: tuple[str, ...]) -> Any:
    """How other runs differ from the run."""
    for name in (run, *others):
        studio.find_run(name)
    return await studio.compute("results.compare_with", studio.data.runs_dir, run, others)


async def make_file(studio: Studio, run: str, file: str) -> dict[str, Any]:
    """Start the command that writes a file of a run."""
    path = studio.find_run(run)
    if file not in MADE_FILES:
        names = " or ".join(MADE_FILES)
        raise RunError(f"The studio cannot make {file[:100]!r}. Choose {names}.")
    words = [MADE_FILES[file], str(path), str(path / file)]
    return studio.jobs.start(words, makes_file=True).to_json()


async def list_files(studio: Studio, run: str) -> dict[str, int]:
    """The sizes in bytes of the files that were made."""
    files = [studio.find_run(run) / name for name in MADE_FILES]
    return {file.name: file.stat().st_size for file in files if file.exists()}


async def rename_run(studio: Studio, run: str, name: str) -> dict[str, str]:
    """Give a run another name."""
    path = studio.find_movable(run)
    if not name:
        raise RunError("The new name is empty. Type one.")
    studio.choose_name(name, "")
    try:
        await studio.compute_quickly("kept_runs.rename_run", path, name)
    finally:
        studio.jobs.free(name)
    studio.jobs.rename(run, name)
    return {"run": name}


async def delete_run(studio: Studio, run: str) -> dict[str, str]:
    """Delete a run, which can be restored until the studio ends."""
    path = studio.find_movable(run)
    token = await studio.compute_quickly("kept_runs.delete_run", path)
    studio.jobs.rename(run, "")
    return {"deleted": token}


async def restore_run(studio: Studio, deleted: str) -> dict[str, str]:
    """Restore a run that was deleted."""
    arguments = (studio.data.runs_dir, deleted)
    run = await studio.compute_quickly("kept_runs.restore_run", *arguments)
    studio.jobs.rename(run, run)
    return {"run": run}


async def write_note(studio: Studio, run: str, note: str) -> dict[str, str]:
    """Replace the note about a run."""
    path = studio.find_run(run)
    await studio.compute_quickly("kept_runs.write_note", path, note)
    studio.jobs.rename(run, run)
    return {}


ACTIONS: Actions = {
    "runs": list_runs,
    "rename-run": rename_run,
    "delete-run": delete_run,
    "restore-run": restore_run,
    "note-run": write_note,
    "run": describe_run,
    "report": on_run("results.show_report"),
    "cell": on_run("results.show_cell", problem=int, truth=int, predicted=int),
    "units": on_run("results.show_units", layer=str),
    "look": on_run("results.look_at", is_quick=True, image=Image),
    "explain": on_run("results.explain", image=Image),
    "similar": on_run("results.find_similar", image=Image),
    "compare": compare,
    "repeat": on_run("repeating.describe_reproduction"),
    "make": make_file,
    "files": list_files,
}
