"""lamina as a person runs it: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from lamina.cli import main
from support import forking


def run_lamina(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has loaded everything; :func:`events` parses --json."""
    words = list(map(str, arguments))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {"COLUMNS": "100", **environment}.items():
            patch.setenv(name, value)
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess(words, status, *texts)


def run_process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, where it matters that it is one."""
    return forking.run(*arguments, environment={**os.environ, "COLUMNS": "100", **environment})


def start_process(*arguments: str | Path, **environment: str) -> forking.Process:
    """Start a command in a process of its own, with pipes for its output."""
    return forking.start(
        *arguments,
        environment={**os.environ, "COLUMNS": "100", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def events(stdout: str) -> list[dict[str, object]]:
    """The JSON lines of a command."""
    return [json.loads(line) for line in stdout.splitlines()]
