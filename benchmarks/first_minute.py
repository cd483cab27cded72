r"""The first training on a folder that lamina has never seen, within a time limit.

Each row is ``lamina train --data FOLDER --time TIME`` in a new process, with an empty cache and
then again with the full one. The folders are drawn by their seed from the JPEG copy of CIFAR-10:
training images from its training images and 200 test images of each class from its test images,
enlarged where a row says so. Several source trees are measured in turns, on the same folders.

Beside a row, other programs may run: trainings of ``cnn-s`` with two threads, or loops with one
thread. The script starts them before a row's commands and ends them after these.

    export LAMINA_CIFAR10=cifar10-images.zip
    python benchmarks/first_minute.py --list
    python benchmarks/first_minute.py --rows photos-20s,messy --trees before=/tmp/base,after=. \
        --seeds 3 --json first-minute.jsonl
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from processes import append_row

from lamina import Images, load_data

FIVE = ("cat", "dog", "horse", "ship", "truck")
LABELS = {
    "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "wheels": ("automobile", "truck"),
    "flies": ("airplane", "bird"),
}
TEST_IMAGES = 200  # of a class; in all, for a table
MESSY = {"cat": 180, "dog": 140, "horse": 120, "ship": 95, "truck": 25}
MESSY_TEST_IMAGES = 60  # of a class
LOOP = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"
LOOP_SECONDS = 600  # after which a loop ends by itself
START_SECONDS = 8  # until a training beside has made its first steps


@dataclasses.dataclass(frozen=True)
class Case:
    """A row: the images, the command's options, its limit, and what runs beside it."""

    images: str  # CLASSESxIMAGES, brightness, labels, messy or shapes
    side_px: int
    seconds: int
    options: tuple[str, ...] = ()
    trainings: int = 0
    loops: int = 0


SCRATCH = ("--no-pretrained",)
PRETRAINED = ("--pretrained",)
NUMBERS = ("--task", "regression")
SEVERAL = ("--task", "multi-label")
CASES = {
    "photos-20s": Case("5x100", 96, 20),
    "photos-1m": Case("5x100", 96, 60),
    "photos-3m": Case("5x100", 96, 180),
    "small-30s": Case("10x50", 32, 30),
    "small-3m": Case("10x50", 32, 180),
    "scratch-20s": Case("5x100", 96, 20, SCRATCH),
    "scratch-1m": Case("5x100", 96, 60, SCRATCH),
    "scratch-3m": Case("10x500", 32, 180, SCRATCH),
    "brightness": Case("brightness", 96, 20, NUMBERS),
    "labels": Case("labels", 96, 20, SEVERAL),
    "shapes": Case("shapes", 32, 20),
    "many-3m": Case("10x2500", 32, 180),
    "beside-1": Case("5x100", 96, 20, trainings=1),
    "beside-2": Case("5x100", 96, 20, trainings=2),
    "messy": Case("messy", 96, 20, PRETRAINED),
    "messy-beside-1": Case("messy", 96, 20, PRETRAINED, loops=1),
    "messy-beside-2": Case("messy", 96, 20, PRETRAINED, loops=2),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of a command; the score is a fraction, or a mean absolute error."""

    case: str
    tree: str
    cache: str
    seed: int
    score: float | None  # None if the command failed
    seconds: float
    detail: str  # the trained net, or the error

    @property
    def is_over(self) -> bool:
        return self.seconds > CASES[self.case].seconds


def draw(images: Images, names: Sequence[str], count: int, seed: int) -> Iterator[tuple[int, str]]:
    """Rows of ``count`` images of each class, in a random order, with their class."""
    order = np.random.default_rng(seed).permutation(len(images))
    for name in names:
        rows = order[images.targets[order] == images.target_names.index(name)]
        for row in rows[:count]:
            yield int(row), name


def enlarge(images: Images, row: int, side_px: int) -> Image.Image:
    image = Image.fromarray(np.asarray(images.pixels[row]))
    return image.resize((side_px, side_px), Image.Resampling.BICUBIC)


def write_folders(case: Case, seed: int, folder: Path) -> str:
    """A folder of class folders, with ``train`` and ``test``."""
    data = load_data("cifar10")
    classes, count = map(int, case.images.split("x"))
    names = FIVE if classes == len(FIVE) else data.train.target_names[:classes]
    for images, number in ((data.train, count), (data.test, TEST_IMAGES)):
        for row, name in draw(images, names, number, seed):
            place = folder / images.split / name / f"{row}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            enlarge(images, row, case.side_px).save(place, quality=90)
    return str(folder)


def write_table(case: Case, seed: int, folder: Path) -> str:
    """A table of 600 training and 1,000 test images, with numbers or three labels."""
    data = load_data("cifar10")
    lines = []
    for images, number in ((data.train, 60), (data.test, 100)):
        for row, name in draw(images, images.target_names, number, seed):
            file = folder / f"{images.split}-{row}.jpg"
            enlarge(images, row, case.side_px).save(file, quality=90)
            targets = {label: int(name in names) for label, names in LABELS.items()}
            if case.images == "brightness":
                targets = {"brightness": round(float(images.pixels[row].mean()) / 255, 4)}
            lines.append({"image": file.name, "split": images.split} | targets)
    path = folder / "labels.csv"
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return str(path)


def write_messy(case: Case, seed: int, folder: Path) -> str:
    """Uneven classes with RGBA, rotated and damaged images and copies, and clean test images."""
    data = load_data("cifar10")
    random = np.random.default_rng(seed)
    for name, count in MESSY.items():
        place = folder / "train" / name
        place.mkdir(parents=True)
        for number, (row, _) in enumerate(draw(data.train, [name], count, seed)):
            image = enlarge(data.train, row, int(random.integers(80, 129)))
            kind = number % 10
            if kind == 0:
                image.convert("RGBA").save(place / f"{row}.png")
            elif kind == 1:
                exif = Image.Exif()
                exif[0x0112] = 6  # to be rotated by a quarter
                image.rotate(90).save(place / f"{row}.jpg", exif=exif)
            else:
                image.save(place / f"{row}.jpg", quality=90)
        files = sorted(place.iterdir())
        shutil.copy(files[2], place / f"copy of {files[2].name}")
        (place / "damaged.jpg").write_bytes(files[3].read_bytes()[:300])
        target = folder / "test" / name
        target.mkdir(parents=True)
        for row, _ in draw(data.test, [name], MESSY_TEST_IMAGES, seed):
            enlarge(data.test, row, case.side_px).save(target / f"{row}.jpg", quality=90)
    return str(folder)


def write_case(case: Case, seed: int, folder: Path) -> str:
    """Write the images, and return what follows ``--data``."""
    if case.images == "shapes":
        return case.images
    if case.images == "messy":
        return write_messy(case, seed, folder)
    if "x" in case.images:
        return write_folders(case, seed, folder)
    return write_table(case, seed, folder)


def list_lamina(tree: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """The command of a tree, and its environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return [sys.executable, "-m", "lamina", *words], {**inherited, "PYTHONPATH": f"{tree}/src"}


@contextmanager
def running_beside(case: Case, tree: Path) -> Iterator[None]:
    """Other programs, until the end of the block."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        commands = [([sys.executable, "-c", LOOP.format(LOOP_SECONDS)], dict(os.environ))]
        commands *= case.loops
        for number in range(case.trainings):
            words = ["train", "cnn-s", "--data", "cifar10", "--time", f"{LOOP_SECONDS}s"]
            command, variables = list_lamina(tree, *words, "--runs-dir", f"{place}/{number}")
            commands.append((command, variables | {"OMP_NUM_THREADS": "2"}))
        for command, variables in commands:
            process = subprocess.Popen(
                command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        if commands:
            time.sleep(START_SECONDS)
        yield


def run_lamina(name: str, tree: tuple[str, Path], cache: Path, seed: int, data: str) -> Row:
    """Train with a cache, timed from the command to its exit."""
    case = CASES[name]
    state = "full" if cache.exists() else "empty"
    with tempfile.TemporaryDirectory() as runs:
        words = ["train", "--data", data, "--time", f"{case.seconds}s", "--seed", str(seed)]
        command, variables = list_lamina(
            tree[1], *words, *case.options, "--runs-dir", runs, "--json"
        )
        began = time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=variables | {"LAMINA_CACHE": str(cache)},
            check=False,
        )
        seconds = round(time.perf_counter() - began, 2)
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or ["failed"])[-1]
        return Row(name, tree[0], state, seed, None, seconds, problem)
    result = json.loads(done.stdout.splitlines()[-1])
    (score,) = (value for key, value in result.items() if key.startswith("test_"))
    detail = f"{result['net']} {result['size_px']} px, {result['epochs_done']} epochs"
    return Row(name, tree[0], state, seed, score, seconds, detail)


def print_table(rows: Sequence[Row]) -> None:
    """Mean and values of each row, tree and state of the cache."""
    print("| row | tree | cache | mean | each seed | seconds | over the limit | trained |")
    print("|---|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((row.case, row.tree, row.cache) for row in rows):
        group = [row for row in rows if (row.case, row.tree, row.cache) == key]
        scores = [row.score for row in group if row.score is not None]
        factor = 1 if CASES[key[0]].images == "brightness" else 100
        digits = 4 if factor == 1 else 1
        mean = "–"
        if scores:
            mean = f"{factor * statistics.fmean(scores):.{digits}f}"
        values = ", ".join(f"{factor * score:.{digits}f}" for score in scores)
        seconds = ", ".join(f"{row.seconds:.1f}" for row in group)
        over = sum(row.is_over for row in group)
        trained = "; ".join(dict.fromkeys(row.detail for row in group))
        print("|", " | ".join((*key, mean, values, seconds, str(over), trained)), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--trees", default="this=.", help="NAME=FOLDER, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="number of draws of each row")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--caches", default="empty,full", help="empty, or empty,full")
    parser.add_argument("--json", type=Path, help="file for the results, one in each line")
    parser.add_argument("--list", action="store_true", help="list the rows, and measure nothing")
    options = parser.parse_args()
    if options.list:
        for name, case in CASES.items():
            print(name, case)
        return
    trees = [text.partition("=") for text in options.trees.split(",")]
    rows: list[Row] = []
    for name in options.rows.split(","):
        case = CASES[name]
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place, "photos")
                folder.mkdir()
                data = write_case(case, seed, folder)
                turns = [(tree, Path(path).resolve()) for tree, _, path in trees]
                with running_beside(case, turns[0][1]):
                    for tree in turns:
                        for _ in options.caches.split(","):
                            row = run_lamina(name, tree, Path(place, tree[0]), seed, data)
                            rows.append(row)
                            print(row, file=sys.stderr, flush=True)
                            if options.json is not None:
                                append_row(options.json, row)
    print_table(rows)


if __name__ == "__main__":
    main()
