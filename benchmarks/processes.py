"""Runs processes and times them from the command to the exit, with the time of each output line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAMINA = Path(sysconfig.get_path("scripts")) / "lamina"
"""The lamina command of this environment."""


def append_row(path: Path, row: Any) -> None:
    """Append a dataclass as a line of JSON, so that an interruption loses no earlier row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(row)) + "\n")


@dataclass(frozen=True)
class Finished:
    """A process that has ended without error.

    Attributes:
        lines: lines of its standard output.
        line_seconds: time of each line since the command.
        seconds: from the command to the exit.
    """

    lines: tuple[str, ...]
    line_seconds: tuple[float, ...]
    seconds: float


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command with additional environment variables; raise CalledProcessError if it fails."""
    lines, line_seconds = [], []
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            line_seconds.append(time.perf_counter() - start)
            lines.append(line.rstrip("\n"))
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output="\n".join(lines))
    return Finished(tuple(lines), tuple(line_seconds), seconds)


@dataclass(frozen=True)
class LaminaTraining:
    """The output of ``lamina train``.

    Attributes:
        epochs: the record of each epoch, with ``printed_seconds``, its time since the command.
        result: the record of the result, likewise.
        seconds: from the command to the exit.
    """

    epochs: tuple[dict[str, Any], ...]
    result: dict[str, Any]
    seconds: float


def train_by_lamina(net: str, options: Mapping[str, object]) -> LaminaTraining:
    """Run ``lamina train NET --json`` with options such as ``{"--epochs": 3}``."""
    words = (str(word) for option in options.items() for word in option)
    command = [str(LAMINA), "train", net, "--json", *words]
    finished = run_process(command)
    events = [
        {**json.loads(line), "printed_seconds": seconds}
        for line, seconds in zip(finished.lines, finished.line_seconds, strict=True)
    ]
    epochs = tuple(event for event in events if event["event"] == "epoch")
    return LaminaTraining(
        epochs, next(event for event in events if event["event"] == "result"), finished.seconds
    )
