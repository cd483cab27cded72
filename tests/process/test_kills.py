"""SIGKILL at 30 random moments, checkpoint writes and cache building among them, loses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.images import write_images

KILLS = 15
"""Of each kind; over all kinds 30."""
# 160,000 weights
NET = (
    "Conv2d(4, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Linear(400), Dropout(0.2), Output()"
)
FLAGS = [
    "--epochs",
    "5",
    "--batch-size",
    "10",
    "--ema-decay",
    "0.9",
    "--flip",
    "random",
    "--translate-px",
    "1",
    "--schedule",
    "cosine",
    "--precision",
    "fp32",
    "--save-every",
    "0s",
    "--device",
    "cpu",
]

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="children are forked and waited for"
)


class Killer:
    """Runs commands in children, and kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, *command: str, seconds: float | None = None) -> tuple[int, float]:
        order = {
            "command": command,
            "folder": str(Path.cwd()),
            "cache": os.environ["LAMINA_CACHE"],
            "seconds": seconds,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        status, started = json.loads(self.process.stdout.readline())
        return status, started


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kills.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield Killer(process)


def read_epochs(run: Path) -> list[tuple[object, ...]]:
    rows = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [
        (row["epoch"], row["weights"], row["train_loss"], row["lr"])
        for row in rows
        if "weights" in row
    ]


def test_a_training_killed_anywhere_ends_with_the_weights_of_one_that_was_not(
    killer, workplace, image_set
):
    train = ["train", NET, "--data", str(image_set), *FLAGS, "--name"]
    assert killer.run(*train, "first")[0] == 0  # decodes the images
    status, started = killer.run(*train, "straight")
    assert status == 0, Path("stderr.txt").read_text()
    straight = Path("runs/straight")
    begun, ended = time_run(straight, started)
    moments = random.Random(0)
    kills = writes = number = 0
    while kills < KILLS:
        number += 1
        assert number <= 2 * KILLS, "the kills come too late"
        run = Path(f"runs/killed-{number}")
        command = [*train, run.name]
        while True:
            # Five kills of a run, each within what is a third of the whole, then it is let go to
            # its end.
            last = begun + (ended - begun) / 3
            limit = moments.uniform(0.9 * begun, last) if kills < min(KILLS, 5 * number) else None
            status, started = killer.run(*command, seconds=limit)
            if status == 0:
                if command[0] == "train":  # the machine may have become quicker since
                    begun, ended = time_run(run, started)
                break
            assert status == -signal.SIGKILL, Path("stderr.txt").read_text()
            kills += 1
            writes += bool(list(run.glob(".*.????????")))
            assert not run.exists() or (run / "run.json").exists()
            command = (
                ["resume", str(run), "--save-every", "0s"] if run.exists() else [*train, run.name]
            )
        assert read_epochs(run) == read_epochs(straight)
        for name in ("model", "state"):
            # The file's digest is of all that it holds; the time that training took is in the
            # checkpoint's.
            assert read_tensors(run / f"{name}.safetensors") == read_tensors(
                straight / f"{name}.safetensors"
            )
        assert {file.name for file in run.iterdir()} == {file.name for file in straight.iterdir()}
    print(f"{kills} kills, {writes} of them inside a write, in {number} runs")


def time_run(run: Path, started: float) -> tuple[float, float]:
    """Seconds after which the run was there, and after which its last checkpoint was."""
    begun, ended = (
        (run / name).stat().st_mtime - started for name in ("run.json", "state.safetensors")
    )
    return begun, ended


def read_tensors(file: Path) -> bytes:
    """The part of a safetensors file after its header."""
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_a_cache_whose_building_is_killed_anywhere_is_made_whole(
    killer, workplace, tmp_path_factory, cache
):
    source = write_images(tmp_path_factory.mktemp("source") / "images", 150, seed=3)
    killer.run("data", str(source))
    clear(cache)
    status, started = killer.run("data", str(source))
    assert status == 0, Path("stderr.txt").read_text()
    straight = read_cache(cache)
    begun, ended = time_building(cache, started)
    moments = random.Random(1)
    kills = halves = number = 0
    while kills < KILLS:
        number += 1
        assert number <= 8 * KILLS, "the kills come too late"
        clear(cache)
        status, started = killer.run(
            "data", str(source), seconds=moments.uniform(0.7 * begun, 1.05 * ended)
        )
        if status == 0:
            # the machine may have become quicker since
            begun, ended = time_building(cache, started)
            continue
        assert status == -signal.SIGKILL, Path("stderr.txt").read_text()
        kills += 1
        halves += bool(list(cache.glob(".*-*/")))
        assert killer.run("data", str(source))[0] == 0, Path("stderr.txt").read_text()
        assert read_cache(cache) == straight
        assert not list(cache.glob(".*-*/"))
    assert halves >= 1, "no kill fell into the building"
    print(f"{kills} kills, {halves} of them inside the building")


def time_building(cache: Path, started: float) -> tuple[float, float]:
    """Seconds after which the pixels were begun, and after which the cache was whole."""
    files = next(cache.glob("*/pixels.npy")), next(cache.glob("*/digest.json"))
    begun, ended = (file.stat().st_mtime - started for file in files)
    return begun, ended


def clear(cache: Path) -> None:
    for file in sorted(cache.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def read_cache(cache: Path) -> list[tuple[str, bytes]]:
    """The arrays of the cache, under the names of their folders."""
    arrays = sorted(cache.glob("*/*.npy"))
    return [(str(file.relative_to(cache)), np.load(file).tobytes()) for file in arrays]
