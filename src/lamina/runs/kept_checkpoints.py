"""Keeps the checkpoints of a run after its epochs, without torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lamina.files import write_atomically

# of the checkpoints of a run; beyond them, every second one is removed
KEPT_BYTES = 2 * 10**9
KEPT_FILES = 50


def keep_checkpoint(run: Path) -> None:
    """Keep the current checkpoint of a run, as a link, because each checkpoint is a new file."""
    folder = run / "checkpoints"
    current = run / "state.safetensors"
    with suppress(OSError):  # lack of space here must not end training
        copy = folder / f"{current.stat().st_mtime_ns}.safetensors"
        folder.mkdir(exist_ok=True)
        try:
            os.link(current, copy)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            write_atomically(copy, current.read_bytes())
        files = sorted(folder.glob("*.safetensors"))
        if len(files) > KEPT_FILES or sum(file.stat().st_size for file in files) > KEPT_BYTES:
            for file in files[1:-1:2]:
                file.unlink()
