"""The checkpoints of a run after its epochs, from which another run can branch."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from lamina.errors import RunError
from lamina.files import METADATA, write_atomically

if TYPE_CHECKING:  # the studio's web process, which does not load torch, keeps checkpoints
    from lamina.runs.run import Run

# of the checkpoints of a run; beyond them, every second one is removed
KEPT_BYTES, KEPT_FILES = (2 * 10**9, 50)


def kept_folder(run: Path) -> Path:
    """The folder of the checkpoints after each epoch, which the studio keeps."""
    return run / "checkpoints"


def list_checkpoints(run: Run) -> dict[float, Path]:
    """The checkpoint files by completed epochs, the last first; empty in the first epoch."""
    rows, found = run.folder.history.epochs(), dict[float, Path]()
    if not rows:
        return {}
    images = round(rows[0]["images_per_second"] * rows[0]["train_seconds"])
    steps_per_epoch = math.ceil(images / run.record.recipe.batch_size)
    kept = sorted(kept_folder(run.path).glob("*.safetensors"))
    for file in [*kept, run.folder.before_fall_file, run.folder.checkpoint_file]:
        with suppress(OSError):  # removed, because there are too many
            steps = _read_steps(file, file.stat().st_mtime_ns)  # a training replaces the last
            found.setdefault(round(steps / steps_per_epoch, 3), file)
    return {epoch: found[epoch] for epoch in sorted(found, reverse=True) if epoch}


def find_checkpoint(run: Run, epoch: float) -> Path:
    found = list_checkpoints(run)
    if epoch not in found:
        choice = (
            f"Choose from {', '.join(f'{one:.10g}' for one in sorted(found))}."
            if found
            else "It has no others."
        )
        raise RunError(f"{run.path} has no checkpoint after epoch {epoch:.10g}. {choice}")
    return found[epoch]


@lru_cache(maxsize=1000)
def _read_steps(file: Path, _: int) -> int:
    """The steps before a checkpoint with this time of writing; 0 if it is damaged."""
    try:
        with safe_open(file, framework="np") as opened:
            stored = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
        return int(json.loads(stored.get("values", "{}")).get("steps_done", 0))
    except (SafetensorError, ValueError):
        return 0


def keep_checkpoint(run: Path) -> None:
    """Keep the current checkpoint of a run, as a link, because each checkpoint is a new file."""
    folder, current = kept_folder(run), run / "state.safetensors"
    with suppress(OSError):  # no training fails for lack of space here
        kept = folder / f"{current.stat().st_mtime_ns}.safetensors"
        if kept.exists():
            return
        folder.mkdir(exist_ok=True)
        try:
            os.link(current, kept)
        except OSError:  # a file system without links
            write_atomically(kept, current.read_bytes())
        files = sorted(folder.glob("*.safetensors"))
        if len(files) > KEPT_FILES or sum(file.stat().st_size for file in files) > KEPT_BYTES:
            for file in files[1:-1:2]:
                file.unlink()
