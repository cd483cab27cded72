"""Copies of a run on other machines than the leader's, so that a machine that is lost takes no training with it.

Where the leader's folder is on no shared disk, the first process on every other machine keeps the same folder. A
training that resumes takes the newest of them whose digest is right.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import LaminaError, LaminaWarning, RunError
from lamina.files import lock_folder, read_bytes, write_atomically
from lamina.runs.record import RunRecord, read_record
from lamina.runs.resume import unpack_checkpoint
from lamina.training.group import Group

if TYPE_CHECKING:
    from lamina.runs.run import Run

FILES = (
    "run.json",
    "splits.json",
    "history.jsonl",
    "model.safetensors",
    "answers.npz",
    "calibration.json",
    "report.json",
    "state.safetensors",
)
"""Those that go from one machine to another; the checkpoint last, as it must never be ahead of the history."""


def bring_run(path: Path, group: Group) -> None:
    """Bring a run that another machine has to the leader, if the leader has none at ``path``."""
    if group.size > 1 and not group.any(group.is_leader and (path / "run.json").exists()):
        fetch_newest(path, group)


def fetch_newest(path: Path, group: Group) -> None:
    """Bring the leader's folder, which nobody else trains, to the newest checkpoint that any machine has of its run.

    Only whole ones count, by their digest. A folder of another run with the same name is left alone.

    Warns:
        LaminaWarning: which process had a newer one.

    Raises:
        RunError: the leader has none and others have different ones, or it cannot be written.
    """
    if group.size == 1:
        return
    own = _find_standing(path) if group.local_rank == 0 else None
    group.wait()  # a large checkpoint takes time to read
    found: list[dict[str, Any] | None] = [json.loads(text) for text in group.gather(json.dumps(own).encode())]
    identities = [one["run"] for one in found if one]
    leaders = found[0]
    if leaders is None and any(identity != identities[0] for identity in identities):
        raise RunError(f"The machines have different runs at {path}. Delete or rename those that are not meant.")
    positions = {rank: one["position"] for rank, one in enumerate(found) if one and one["run"] == identities[0]}
    newest = max(positions, key=lambda rank: (positions[rank], -rank), default=0)
    if newest == 0 or (leaders is not None and positions[newest] <= leaders["position"]):
        return
    contents = {name: group.share(_read(path / name) if group.rank == newest else b"", newest) for name in FILES}

    def write() -> bytes:
        try:
            path.mkdir(parents=True, exist_ok=True)
            _replace_all(path, contents)
        except OSError as error:
            raise RunError(f"Cannot write to {path}: {error.strerror or error}.") from error
        steps = positions[newest][1]
        position = f"after step {steps}" if steps >= 0 else "without a checkpoint"
        warnings.warn(f"{path} was copied from the machine of rank {newest}, {position}.", LaminaWarning, stacklevel=6)
        return b""

    group.lead(write)


@contextmanager
def keep_copy(run: Run, group: Group) -> Iterator[bool]:
    """A block in which this process may keep the run's folder, and whether it does.

    The leader does, in a folder that it has locked, and the first process on each machine that does not see this folder
    keeps a copy, which begins with the leader's files.

    Warns:
        LaminaWarning: a machine keeps no copy; the training goes on without it.
    """
    if group.size == 1:
        yield True
        return
    with ExitStack() as stack:
        path = run.path
        mark = path / group.lead(lambda: _leave_mark(path)).decode()
        lacks_folder = group.local_rank == 0 and not mark.exists()
        contents = {}
        if group.any(lacks_folder):
            contents = {name: group.share(_read(path / name) if group.is_leader else b"") for name in FILES}
        if group.is_leader:
            mark.unlink(missing_ok=True)  # by now all have looked
        problem = _begin_copy(run, contents, stack) if lacks_folder else ""
        group.wait()
        for rank, text in enumerate(group.gather(problem.encode())):
            if text and group.is_leader:
                message = f"The machine of rank {rank} keeps no copy of the run: {text.decode()} The training goes on."
                warnings.warn(message, LaminaWarning, stacklevel=4)
        yield group.is_leader or (lacks_folder and not problem)


def _leave_mark(path: Path) -> bytes:
    mark = path / f".mark.{secrets.token_hex(4)}"
    write_atomically(mark, "")
    return mark.name.encode()


def _begin_copy(run: Run, contents: Mapping[str, bytes], stack: ExitStack) -> str:
    """Make the folder with the leader's files, locked until ``stack`` ends; why that was impossible, if it was."""
    path = run.path
    try:
        if (path / "run.json").exists() and _identify(read_record(path)) != _identify(run.record):
            return f"{path} is another run there. Rename one of them."
        path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock_folder(path))
        _replace_all(path, contents)
    except OSError as error:
        return f"{path} cannot be written ({error.strerror or error})."
    except LaminaError as error:
        return str(error)
    return ""


def _find_standing(path: Path) -> dict[str, Any] | None:
    """Which run a folder holds and where its checkpoint is: before the first step where there is no whole one.

    ``None`` where there is no run. One that cannot be read is like no other.
    """
    if not (path / "run.json").exists():
        return None
    try:
        run = _identify(read_record(path))
    except LaminaError as error:
        return {"run": [str(error), secrets.token_hex(4)], "position": [-1, -1]}
    try:
        standing = unpack_checkpoint(read_bytes(path / "state.safetensors"), str(path)).standing
    except LaminaError:
        return {"run": run, "position": [-1, -1]}
    return {"run": run, "position": [standing.rewinds, standing.steps_done]}


def _identify(record: RunRecord) -> list[str]:
    """What tells two runs of the same name apart, and stays when one is resumed."""
    return [record.created, record.net_name, record.data.fingerprint]


def _read(file: Path) -> bytes:
    return read_bytes(file) if file.exists() else b""


def _replace_all(path: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        if content:
            write_atomically(path / name, content)
        else:
            (path / name).unlink(missing_ok=True)
