"""lamina as a person runs it: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from lamina.cli import STARTED, main
from support import forking


def run_lamina(
    *arguments: str | Path, draws_curves: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has loaded everything; :func:`events` parses --json.

    ``curves.png`` takes longer than a short training, so a training draws it only if asked to.
    """
    words = list(map(str, arguments))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {"COLUMNS": "100", **environment}.items():
            patch.setenv(name, value)
        if not draws_curves:
            patch.setattr("lamina.cli.session._save_curves", lambda *_: None)
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess(words, status, *texts)


def run_well(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Like :func:`run_lamina`, for a command that must succeed."""
    done = run_lamina(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done


def run_refused(*arguments: str | Path, **environment: str) -> str:
    """What a command prints on stderr that must end with status 2 and without a traceback."""
    done = run_lamina(*arguments, **environment)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def run_from_now(seconds: float, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command here whose time limit ends ``seconds`` from now, not from process start."""
    return run_lamina(*arguments, "--time", f"{time.perf_counter() - STARTED + seconds:.1f}s")


@cache
def train_once(net: str, data: str | Path, *options: str | Path) -> Path:
    """The run of ``lamina train NET --data DATA OPTIONS``, trained once in this process.

    A test that changes it changes a copy.
    """
    folder = Path(find_folder().name, str(train_once.cache_info().misses))
    run_well("train", net, "--data", data, *options, "--runs-dir", folder, "--name", "run")
    return folder / "run"


@cache
def find_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for finished runs, which goes when this process ends."""
    return tempfile.TemporaryDirectory(prefix="lamina-runs-")


def run_process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, where it matters that it is one."""
    return forking.run(*arguments, environment={**os.environ, "COLUMNS": "100", **environment})


def start_process(
    *arguments: str | Path, code: str = forking.MODULE, **environment: str
) -> forking.Process:
    """Start a command in a process of its own, with pipes for its output.

    Instead of the command, ``code`` may be Python that calls it.
    """
    return forking.start(
        *arguments,
        code=code,
        environment=forking.unmeasured(**{"COLUMNS": "100", **environment}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def events(stdout: str) -> list[dict[str, object]]:
    """The JSON lines of a command."""
    return [json.loads(line) for line in stdout.splitlines()]
