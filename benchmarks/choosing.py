r"""What choosing between pretrained and random weights costs, within a time limit.

Runs `lamina train --data FOLDER --time TIME`, with the extra `pretrained` and with
`--no-pretrained`, with an empty cache, one command after the other. The data sets:

- ``photos-N``: N images of CIFAR-10, and 2,000 held-out training images as ``test``;
- ``drawings``: Open Clip Art, 6,211 training images in 22 classes (``apt-get install
  openclipart-png``, or ``--drawings FOLDER``), with the ``test`` that lamina draws;
- ``digits``: scikit-learn's digits, 8 px, 1,297 training images;
- ``shapes``: the built-in shapes, 8,000 training images.

"Decided" is the time from the start of the command to the line with the trials. ``--checkout``
measures another version of lamina. Rows in the JSON file are not measured again.

    export LAMINA_CIFAR10=cifar10-images.zip
    python benchmarks/choosing.py --sets photos-500,drawings --times 1m,3m --json choosing.jsonl
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from processes import append_row, run_process
from small_sets import HELD_OUT_FROM

from lamina import load_data

DRAWINGS = Path("/usr/share/openclipart/png")
TEST_IMAGES = 2_000
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """The result of a command; times in seconds since its start."""

    version: str
    data: str
    limit: str
    way: str  # extra, or scratch
    decided: float | None  # None without trials
    net: str
    size_px: int
    accuracy: float  # on test, in percent
    seconds: float

    @property
    def key(self) -> tuple[str, ...]:
        return self.version, self.data, self.limit, self.way

    def __str__(self) -> str:
        decided = "–" if self.decided is None else f"{self.decided:.1f} s"
        return (
            f"| {' | '.join(self.key)} | {decided} | {self.net}, {self.size_px} px"
            f" | {self.accuracy:.1f} % | {self.seconds:.1f} s |"
        )


HEAD = "| version | data | limit | way | decided | trained | test accuracy | whole command |"


def write_photos(folder: Path, count: int) -> None:
    """Write training images of CIFAR-10, and others as ``test``."""
    train = load_data("cifar10").train
    order = np.random.default_rng(99).permutation(len(train))
    splits = {
        "train": order[:HELD_OUT_FROM][:count],
        "test": order[HELD_OUT_FROM:][:TEST_IMAGES],
    }
    for split, rows in splits.items():
        for row in rows:
            place = folder / split / train.target_names[train.targets[row]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(train.pixels[row]).save(place / f"{row}.png")


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits; a fifth, chosen at random, is ``test``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    for number, row in enumerate(order):
        place = folder / ("test" if number < len(order) // 5 else "train") / str(digits.target[row])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).save(place / f"{row}.png")


def write_set(name: str, folder: Path, drawings: Path) -> str:
    """Write a data set, and return what to train on."""
    if name == "drawings":
        return str(drawings)
    if name.startswith("photos-"):
        write_photos(folder, int(name.removeprefix("photos-")))
    elif name == "digits":
        write_digits(folder)
    else:
        return name
    return str(folder)


def measure(version: str, checkout: Path, data: str, source: str, limit: str, way: str) -> Row:
    """Train with an empty cache."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "lamina", "train", "--data", source, "--time", limit]
        command += ["--runs-dir", f"{place}/runs", "--json"]
        if way == "scratch":
            command.append("--no-pretrained")
        variables = {"PYTHONPATH": str(checkout / "src"), "LAMINA_CACHE": f"{place}/cache"}
        done = run_process(command, variables)
    events = [json.loads(line) for line in done.lines]
    trials = [
        seconds
        for event, seconds in zip(events, done.line_seconds, strict=True)
        if event["event"] == "scratch_trial"
    ]
    result = events[-1]
    return Row(
        version,
        data,
        limit,
        way,
        trials[0] if trials else None,
        result["net"],
        result["size_px"],
        round(100 * result["test_accuracy"], 2),
        done.seconds,
    )


def read_keys(path: Path) -> set[tuple[str, ...]]:
    """The measured versions, data sets, limits and ways."""
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines()
    return {Row(**json.loads(line)).key for line in lines}


def main(
    sets: str = "photos-500,photos-5000,photos-20000,drawings",
    times: str = "1m,3m",
    ways: str = "extra,scratch",
    version: str = "this",
    checkout: Path = REPOSITORY,
    drawings: Path = DRAWINGS,
    rows: Annotated[Path, tyro.conf.arg(name="json")] = Path("choosing.jsonl"),
) -> None:
    """Measure data sets, time limits and ways. Lists are separated by commas.

    Args:
        sets: data sets: photos-N, drawings, digits, shapes.
        times: time limits.
        ways: extra, scratch.
        version: name of the measured version in the table.
        checkout: folder of the repository with the measured version.
        drawings: folder with Open Clip Art.
        rows: file for the rows, one in each line.
    """
    measured = read_keys(rows)
    print(HEAD + "\n" + "|---" * HEAD.count(" | ") + "|---|", flush=True)
    for data in sets.split(","):
        with tempfile.TemporaryDirectory() as place:
            source = write_set(data, Path(place), drawings)
            for limit in times.split(","):
                for way in ways.split(","):
                    if (version, data, limit, way) in measured:
                        continue
                    row = measure(version, checkout, data, source, limit, way)
                    append_row(rows, row)
                    print(row, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
