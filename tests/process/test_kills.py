"""Kills at random moments, checkpoint writes and cache building among them, lose nothing."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.commands import start_process
from support.examples import IS_COMPLETE
from support.forking import MODULE
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
    *("--device", "cpu"),
)
COUNTED = """
import atexit, json, os, signal, sys
from pathlib import Path
from lamina.runs import course

course.SAVE_SECONDS = 0.0  # a checkpoint after each step
last, delay_seconds, file = json.loads(os.environ["KILLED"])
process = os.getpid()
paths = []

def count(event, arguments):
    if event in ("open", "os.mkdir", "os.rename", "os.remove") and os.getpid() == process:
        paths.append(str(arguments[1 if event == "os.rename" else 0]))
        if len(paths) == last:
            signal.setitimer(signal.ITIMER_REAL, delay_seconds)

sys.addaudithook(count)
atexit.register(lambda: Path(file).write_text(json.dumps(paths)))
"""
"""Counts the files and folders that a process opens, makes, renames and removes.

At a number of them, an alarm is set that nobody handles, so the system kills the process wherever
it is then. Unlike time, these numbers are the same on every machine.
"""

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="Windows has no signal that kills"
)


@dataclass(frozen=True)
class Killing:
    """After which number of a process's files it is killed, and how long after."""

    last: int
    delay_seconds: float


def run_and_kill(*command: str, killing: Killing | None = None) -> list[str] | None:
    """The files that a command has opened or changed; ``None`` if it was killed."""
    file = Path("paths.json").absolute()
    file.unlink(missing_ok=True)
    last, delay_seconds = (killing.last, killing.delay_seconds) if killing else (0, 0.0)
    values = json.dumps([last, delay_seconds, str(file)])
    with start_process(*command, code=f"{COUNTED}\n{MODULE}", KILLED=values) as process:
        _, errors = process.communicate()
    if process.returncode == 0:
        return json.loads(file.read_text())
    assert killing is not None and process.returncode == -signal.SIGALRM, errors
    return None


def find_place(paths: list[str], name: str) -> int:
    """The number of the first file with a word in its path."""
    return 1 + next(place for place, path in enumerate(paths) if name in path)


def read_epochs(folder: Path) -> list[tuple[object, ...]]:
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [
        (row["epoch"], row["weights"], row["train_loss"], row["lr"])
        for row in rows
        if "weights" in row
    ]


def test_a_training_killed_anywhere_ends_with_the_same_weights(workplace, image_set):
    train = ["train", NET, "--data", str(image_set), *FLAGS, "--name"]
    run_and_kill(*train, "first")  # decodes the images
    paths = run_and_kill(*train, "straight")
    straight = Path("runs/straight")
    begun = find_place(paths, "run.json")
    moments = random.Random(0)

    def choose(kills: int) -> Killing | None:
        """Five kills of a run, each within what is a third of the whole; then it may end."""
        last = begun + (len(paths) - begun) // 3
        killing = Killing(moments.randint(9 * begun // 10, last), moments.uniform(1e-5, 0.02))
        return killing if kills < 5 else None

    kills = 0
    number = 0
    while kills < KILLS:
        number += 1
        folder = Path(f"runs/killed-{number}")
        command = [*train, folder.name]
        kills_here = 0
        while run_and_kill(*command, killing=choose(kills_here)) is None:
            kills_here += 1
            if (folder / "run.json").exists():  # a folder without it is taken by the same command
                command = ["resume", str(folder)]
        assert kills_here > 0
        kills += kills_here
        assert read_epochs(folder) == read_epochs(straight)
        for name in ("model", "state"):
            # The file's digest is of all that it holds; the time that training took is in the
            # checkpoint's.
            file = f"{name}.safetensors"
            assert read_tensors(folder / file) == read_tensors(straight / file)
        assert {file.name for file in folder.iterdir()} == {
            file.name for file in straight.iterdir()
        }


def read_tensors(file: Path) -> bytes:
    """The part of a safetensors file after its header."""
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_a_cache_whose_building_is_killed_anywhere_is_made_whole(
    workplace, tmp_path_factory, cache
):
    source = str(write_images(tmp_path_factory.mktemp("source") / "images", 150, seed=3))
    paths = run_and_kill("data", source)
    straight = read_cache(cache)
    begun = find_place(paths, "images-")  # the folder in the cache
    ended = find_place(paths, "dataset.json")
    moments = random.Random(1)
    kills = 0
    tries = 0
    halves = 0
    longest_delay_seconds = 0.1
    while kills < KILLS:
        clear(cache)
        killing = Killing(moments.randint(begun, ended), moments.uniform(0, longest_delay_seconds))
        tries += 1
        assert tries < 10 * KILLS, "the kills come too late"
        if run_and_kill("data", source, killing=killing) is not None:
            longest_delay_seconds /= 2
            continue
        kills += 1
        halves += bool(list(cache.glob(".*-*/")))
        run_and_kill("data", source)
        assert read_cache(cache) == straight
        assert not list(cache.glob(".*-*/"))
    assert halves > 0, "no kill fell into the building"


def clear(cache: Path) -> None:
    for file in sorted(cache.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def read_cache(cache: Path) -> list[tuple[str, bytes]]:
    """The pixels and arrays of the cache, under the names of their folders."""
    arrays = sorted([*cache.glob("*/pixels"), *cache.glob("*/*.npy")])
    return [(str(file.relative_to(cache)), file.read_bytes()) for file in arrays]
