"""Copies of a run on other machines than the leader's, so that a machine that is lost takes no training with it.

Where the leader's folder is on no shared disk, the first process on every other machine keeps the same folder. A
training that resumes takes the newest of them whose digest is right.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import LaminaError, LaminaWarning
from lamina.files import lock_folder, read_bytes, write_atomically
from lamina.runs.record import RunRecord, read_record
from lamina.runs.resume import unpack_checkpoint
from lamina.training.group import Group

if TYPE_CHECKING:
    from lamina.runs.run import Run

FILES = ("run.json", "splits.json", "history.jsonl", "model.safetensors", "report.json", "state.safetensors")
"""Those that go from one machine to another; the checkpoint last, as it must never be ahead of the history."""


def fetch_newest(path: Path, group: Group) -> None:
    """Bring the leader's folder to the newest checkpoint that any machine has of its run.

    Only whole ones count, by their digest. A folder of another run with the same name is left alone.

    Warns:
        LaminaWarning: which process had a newer one.
    """
    if group.size == 1:
        return
    own = _find_standing(path) if group.is_first_here else {}
    found = [json.loads(text) for text in group.gather(json.dumps(own).encode())]
    leaders = found[0]
    of_this_run = [rank for rank, one in enumerate(found) if one and one["id"] == (leaders or one)["id"]]
    newest = max(of_this_run, key=lambda rank: (found[rank]["position"], -rank), default=0)
    if newest == 0 or (leaders and found[newest]["position"] <= leaders["position"]):
        return
    if group.is_leader:
        path.mkdir(parents=True, exist_ok=True)
        warnings.warn(
            f"The machine of rank {newest} has the newest checkpoint of {path}, after step "
            f"{found[newest]['position'][1]}; it is copied to here.",
            LaminaWarning,
            stacklevel=4,
        )
    for name in FILES:
        content = group.share(_read(path / name) if group.rank == newest else b"", newest)
        if group.is_leader:
            _replace(path / name, content)


@contextmanager
def keep_copy(run: Run, group: Group) -> Iterator[bool]:
    """A block in which this process may keep the run's folder, and whether it does.

    The leader does, in a folder that it has locked, and the first process on each machine that does not see this folder
    keeps a copy, which begins with the leader's files.

    Warns:
        LaminaWarning: the copy cannot be kept; the training goes on without it.
    """
    path = run.path
    if group.size == 1:
        yield True
        return
    mark = path / group.lead(lambda: _leave_mark(path)).decode()
    lacks_folder = group.is_first_here and not mark.exists()
    is_copied = group.any(lacks_folder)  # by now all have looked
    if group.is_leader:
        mark.unlink(missing_ok=True)
    contents = {name: group.share(_read(path / name) if group.is_leader else b"") for name in FILES if is_copied}
    with ExitStack() as stack:
        try:
            yield group.is_leader or (lacks_folder and _begin_copy(run, contents, stack))
        finally:
            stack.close()


def _leave_mark(path: Path) -> bytes:
    mark = path / f".mark.{secrets.token_hex(4)}"
    write_atomically(mark, "")
    return mark.name.encode()


def _begin_copy(run: Run, contents: dict[str, bytes], stack: ExitStack) -> bool:
    """Make the folder with the leader's files, locked until ``stack`` ends; whether that was possible."""
    path = run.path
    try:
        if (path / "run.json").exists() and _identify(read_record(path)) != _identify(run.record):
            raise FileExistsError(0, "it is another run here")
        path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock_folder(path))
        for name, content in contents.items():
            _replace(path / name, content)
    except (OSError, LaminaError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        warnings.warn(
            f"This machine keeps no copy of {path}: {reason}. The training goes on.", LaminaWarning, stacklevel=6
        )
        return False
    return True


def _find_standing(path: Path) -> dict[str, Any]:
    """Which run a folder holds and where its checkpoint is; without a whole checkpoint, before the first step."""
    try:
        found = {"id": _identify(read_record(path)), "position": [-1, -1]}
    except LaminaError:
        return {}
    try:
        standing = unpack_checkpoint(read_bytes(path / "state.safetensors"), str(path)).standing
    except LaminaError:
        return found
    return found | {"position": [standing.rewinds, standing.steps_done]}


def _identify(record: RunRecord) -> list[str]:
    """What tells two runs of the same name apart, and stays when one is resumed."""
    return [record.created, record.net_name, record.data.fingerprint]


def _read(file: Path) -> bytes:
    return read_bytes(file) if file.exists() else b""


def _replace(file: Path, content: bytes) -> None:
    if content:
        write_atomically(file, content)
    else:
        file.unlink(missing_ok=True)
