"""SIGKILL at random moments, checkpoint writes and cache building among them, loses nothing."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from support.commands import start_process
from support.examples import IS_COMPLETE
from support.forking import PATIENCE_SECONDS
from support.images import write_images

KILLS = 15 if IS_COMPLETE else 5
"""Of a training, and of building a cache."""
# 160,000 weights
NET = (
    "Conv2d(4, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Linear(400), Dropout(0.2), Output()"
)
FLAGS = (
    *("--epochs", "5", "--batch-size", "10", "--flip", "random"),
    *("--translate-px", "1", "--schedule", "cosine", "--precision", "fp32"),
    *("--save-every", "0s", "--device", "cpu"),
)

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="Windows has no signal that kills"
)


def run_and_kill(*command: str, seconds: float = PATIENCE_SECONDS) -> tuple[int, float]:
    """Run a command and kill it after ``seconds``; returns its status and the time of its start."""
    started = time.time()
    with start_process(*command) as process:
        with suppress(AssertionError):  # it has not ended yet
            process.wait(seconds)
        process.kill()
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode, started


def read_epochs(folder: Path) -> list[tuple[object, ...]]:
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [
        (row["epoch"], row["weights"], row["train_loss"], row["lr"])
        for row in rows
        if "weights" in row
    ]


def test_a_training_killed_anywhere_ends_with_the_weights_of_one_that_was_not(workplace, image_set):
    train = ["train", NET, "--data", str(image_set), *FLAGS, "--name"]
    assert run_and_kill(*train, "first")[0] == 0  # decodes the images
    status, started = run_and_kill(*train, "straight")
    assert status == 0
    straight = Path("runs/straight")
    begun, ended = time_run(straight, started)
    moments = random.Random(0)
    kills = number = 0
    while kills < KILLS:
        number += 1
        assert number <= 2 * KILLS, "the kills come too late"
        folder = Path(f"runs/killed-{number}")
        command = [*train, folder.name]
        while True:
            # Five kills of a run, each within what is a third of the whole, then it is let go to
            # its end.
            last = begun + (ended - begun) / 3
            is_killed = kills < min(KILLS, 5 * number)
            limit = moments.uniform(0.9 * begun, last) if is_killed else PATIENCE_SECONDS
            status, started = run_and_kill(*command, seconds=limit)
            if status == 0:
                if command[0] == "train":  # the machine may have become quicker since
                    begun, ended = time_run(folder, started)
                break
            kills += 1
            assert not folder.exists() or (folder / "run.json").exists()
            command = [*train, folder.name]
            if folder.exists():
                command = ["resume", str(folder), "--save-every", "0s"]
        assert read_epochs(folder) == read_epochs(straight)
        for name in ("model", "state"):
            # The file's digest is of all that it holds; the time that training took is in the
            # checkpoint's.
            file = f"{name}.safetensors"
            assert read_tensors(folder / file) == read_tensors(straight / file)
        assert {file.name for file in folder.iterdir()} == {
            file.name for file in straight.iterdir()
        }


def time_run(folder: Path, started: float) -> tuple[float, float]:
    """Seconds after which the run was there, and after which its last checkpoint was."""
    begun, ended = (
        (folder / name).stat().st_mtime - started for name in ("run.json", "state.safetensors")
    )
    return begun, ended


def read_tensors(file: Path) -> bytes:
    """The part of a safetensors file after its header."""
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_a_cache_whose_building_is_killed_anywhere_is_made_whole(
    workplace, tmp_path_factory, cache
):
    source = str(write_images(tmp_path_factory.mktemp("source") / "images", 150, seed=3))
    run_and_kill("data", source)
    clear(cache)
    status, started = run_and_kill("data", source)
    assert status == 0
    straight = read_cache(cache)
    begun, ended = time_building(cache, started)
    moments = random.Random(1)
    kills = halves = number = 0
    while kills < KILLS:
        number += 1
        assert number <= 8 * KILLS, "the kills come too late"
        clear(cache)
        status, started = run_and_kill(
            "data", source, seconds=moments.uniform(0.7 * begun, 1.05 * ended)
        )
        if status == 0:
            # the machine may have become quicker since
            begun, ended = time_building(cache, started)
            continue
        kills += 1
        halves += bool(list(cache.glob(".*-*/")))
        assert run_and_kill("data", source)[0] == 0
        assert read_cache(cache) == straight
        assert not list(cache.glob(".*-*/"))
    assert halves >= 1 or not IS_COMPLETE, "no kill fell into the building"


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
