"""Keeps the checkpoints of a run after its epochs, without torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lamina.files import write_atomically

# of the checkpoints of a run; beyond them, every second one is removed
KEPT_BYTES, KEPT_FILES = (2 * 10**9, 50)


def keep_checkpoint(run: Path) -> None:
    """Keep the current checkpoint of a run, as a link, because each checkpoint is a new file."""
    folder, current = run / "checkpoints", run / "state.safetensors"
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
