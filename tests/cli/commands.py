"""Small pictures on disk, and lamina as a person runs it: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 12


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Bright and dark squares in class folders: learned in a moment."""
    generator = np.random.default_rng(seed)
    for name, low in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(low, low + 100, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def run_lamina(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with --json its lines are read by :func:`events`."""
    return subprocess.run(
        [sys.executable, "-m", "lamina", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
        check=False,
    )


def events(stdout: str) -> list[dict[str, object]]:
    """The JSON lines of a command."""
    return [json.loads(line) for line in stdout.splitlines()]
