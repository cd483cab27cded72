"""What people bring: hundreds to thousands of images. lamina's own choice beside what else they could do.

Each case is a folder of JPEGs drawn from CIFAR-10 by its seed: so many images of each of so many classes, enlarged to
a side where that is over 32 px, and 200 test images a class. All get the same folder and the same time:

- ``lamina``: ``lamina train --data FOLDER --time TIME``, from scratch and with the pretrained weights on this disk;
- ``sweep``: the best, by its test accuracy, of ``lamina train NET --size SIDE --time TIME`` for three nets and two
  sides: what somebody who knew would have typed;
- ``svc`` and ``logistic``: scikit-learn on the standardized pixels at 32 px, which take as long as they take;
- ``fastai``: a ResNet-18 from scratch by its defaults, as many epochs as the time allows (benchmarks/peer).

With ``--targets`` other than ``classes`` the images have a table of targets that are computed from their pixels:
numbers (``brightness``, the difference of ``red-blue``, ``contrast``), three labels (``labels``), or yes and no
(``binary``: is it an animal?). For these ``lamina`` and ``sweep`` are run, and the table says by how much of the
trivial answer's error, or of what it lacks to a perfect score, lamina's is smaller: 0.2 is a fifth.

``--held-out`` draws the test images from CIFAR-10's training images, for choosing rules; without it they are test
images, which are for reporting.

    python benchmarks/small_sets.py --images 500 --sides 32,96 --classes 5,10 --times 20s,1m --json small.json
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from article import test_split
from PIL import Image
from processes import LAMINA, append_row
from rich.console import Console
from rich.table import Table

from lamina import Dataset, Images, load_data
from lamina.cli.terminal import read_seconds
from lamina.evaluation.intervals import mean_interval

TEST_IMAGES_A_CLASS = 200
FIVE = ("cat", "dog", "horse", "ship", "truck")
SWEEP = tuple((net, side) for net in ("cnn-s", "cnn-m", "cnn-l") for side in (32, 48))
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
NUMBERS = ("brightness", "red-blue", "contrast")
TASKS = {
    **{name: ["--task", "regression"] for name in NUMBERS},
    "labels": ["--task", "multi-label"],
    "binary": ["--task", "binary", "--label-column", "is it an animal?"],
}
HELD_OUT_FROM = 40_000
"""Of CIFAR-10's training images, in an order of its own: those behind are held out."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A folder of images, what is to be predicted, and the time for it."""

    targets: str
    images: int
    classes: int
    side_px: int
    time: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Row:
    """What a way reached on a case; ``detail`` is the net and the size, or why there is no figure.

    ``score`` is the accuracy, the mean average precision or the mean absolute error; ``baseline`` is the same of the
    best constant answer.
    """

    case: Case
    way: str
    detail: str
    score: float | None
    seconds: float
    baseline: float | None = None

    @property
    def figure(self) -> float | None:
        """Of classes the accuracy in percent, of others what is left of the constant answer's error."""
        if self.score is None:
            return None
        if self.case.targets == "classes" or self.baseline is None:
            return 100 * self.score
        best = 0.0 if self.case.targets in NUMBERS else 1.0
        return (best - self.score) / (best - self.baseline)


def choose_classes(data: Dataset, count: int) -> list[int]:
    """Two, five or ten of CIFAR-10's classes, by number."""
    names = data.train.target_names
    return list(range(len(names))) if count == len(names) else [names.index(name) for name in FIVE[:count]]


def draw(images: Images, rows: np.ndarray, classes: list[int], a_class: int, seed: int) -> dict[int, np.ndarray]:
    """So many of ``rows`` for each class."""
    order = np.random.default_rng(seed).permutation(rows)
    return {number: order[images.targets[order] == number][:a_class] for number in classes}


def write_case(case: Case, data: Dataset, folder: Path, *, is_held_out: bool) -> Path:
    """The case's folder, with ``train`` and ``test``, or its table."""
    order = np.random.default_rng(99).permutation(len(data.train))
    sources = {"train": (data.train, order[:HELD_OUT_FROM]), "test": (data.train, order[HELD_OUT_FROM:])}
    if not is_held_out:
        sources = {"train": (data.train, order), "test": (test_split(data), np.arange(len(test_split(data))))}
    table = []
    for split, (images, rows) in sources.items():
        count = case.images // case.classes if split == "train" else TEST_IMAGES_A_CLASS
        for number, chosen in draw(images, rows, choose_classes(data, case.classes), count, case.seed).items():
            name = images.target_names[number]
            place = Path(split, name) if case.targets == "classes" else Path("images")
            (folder / place).mkdir(parents=True, exist_ok=True)
            for row in chosen:
                image = Image.fromarray(np.asarray(images.pixels[row]))
                if case.side_px != image.width:
                    image = image.resize((case.side_px, case.side_px), Image.Resampling.BICUBIC)
                file = place / f"{split}-{row}.jpg"
                image.save(folder / file, quality=90)
                computed = compute_targets(case.targets, images.pixels[row], name)
                table.append({"image": str(file), "split": split} | computed)
    if case.targets == "classes":
        return folder
    with (folder / "labels.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return folder / "labels.csv"


def compute_targets(targets: str, pixels: np.ndarray, name: str) -> dict[str, float | str]:
    """The columns of an image's targets."""
    grey = pixels.mean(axis=2)
    texture = np.abs(np.diff(grey, axis=0)).mean()
    match targets:
        case "brightness":
            return {targets: round(float(pixels.mean()) / 255, 4)}
        case "red-blue":
            return {targets: round(float(pixels[..., 0].mean() - pixels[..., 2].mean()), 3)}
        case "contrast":
            return {targets: round(float(grey.std()), 3)}
        case "labels":
            return {"animal": int(name in ANIMALS), "bright": int(grey.mean() > 120), "textured": int(texture > 12)}
        case "binary":
            return {"is it an animal?": "yes" if name in ANIMALS else "no"}
    return {}


def run_lamina(case: Case, folder: Path, way: str, *words: str) -> Row:
    """Train by a command, timed from its start to its exit, with a cache of its own."""
    with tempfile.TemporaryDirectory() as place:
        command = [str(LAMINA), "train", *words, "--data", str(folder), "--time", case.time, "--seed", str(case.seed)]
        command += TASKS.get(case.targets, [])
        environment = os.environ | {"LAMINA_CACHE": f"{place}/cache"}
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--runs-dir", f"{place}/runs", "--json"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        return Row(case, way, done.stderr.strip().splitlines()[-1], None, seconds)
    result = json.loads(done.stdout.splitlines()[-1])
    (score,) = (value for name, value in result.items() if name.startswith("test_"))
    return Row(case, way, f"{result['net']} {result['size_px']} px", score, seconds, result["baseline"]["value"])


def run_sklearn(case: Case, folder: Path) -> list[Row]:
    """The two classifiers on pixels, if scikit-learn is installed."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC
    except ImportError:
        return []
    rows = []
    for way, classifier in (("svc", SVC()), ("logistic", LogisticRegression(max_iter=200))):
        began = time.perf_counter()
        x_train, y_train = read_pixels(folder / "train")
        x_test, y_test = read_pixels(folder / "test")
        accuracy = make_pipeline(StandardScaler(), classifier).fit(x_train, y_train).score(x_test, y_test)
        rows.append(Row(case, way, "32 px", float(accuracy), time.perf_counter() - began))
    return rows


def read_pixels(folder: Path) -> tuple[np.ndarray, list[str]]:
    """The pixels of a folder's images at 32 px as rows of numbers, and their classes."""
    files = sorted(folder.glob("*/*.jpg"))
    pixels = [
        np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BICUBIC), np.float32).ravel() for file in files
    ]
    return np.stack(pixels), [file.parent.name for file in files]


def run_fastai(case: Case, folder: Path, python: str) -> Row:
    """The peer, in an environment of its own."""
    script = Path(__file__).parent / "peer" / "folder_with_fastai.py"
    began = time.perf_counter()
    done = subprocess.run(
        [python, str(script), str(folder), str(read_seconds("--times", case.time)), str(case.seed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        return Row(case, "fastai", (done.stderr.strip().splitlines() or ["failed"])[-1], None, seconds)
    result = json.loads(done.stdout.splitlines()[-1])
    return Row(case, "fastai", f"{result['epochs']} epochs", result["accuracy"], seconds)


def compare(rows: list[Row]) -> Table:
    """A line for each case but for its seed, with the mean accuracy of each way; of the sweep, its best."""
    ways = list(dict.fromkeys(row.way for row in rows))
    table = Table("targets", "images", "classes", "px", "time", *ways, "most seconds of lamina")
    for key in dict.fromkeys(dataclasses.astuple(row.case)[:5] for row in rows):
        own = [row for row in rows if dataclasses.astuple(row.case)[:5] == key]
        cells = []
        for way in ways:
            best: dict[str, list[float]] = {}
            for row in own:
                if row.way == way and row.figure is not None:
                    best.setdefault(row.detail if way == "sweep" else "", []).append(row.figure)
            means = [mean_interval(each).mean for each in best.values()]
            is_accuracy = key[0] == "classes"
            found = (max if is_accuracy else min)(means, default=None)
            cells.append("–" if found is None else f"{found:.1f}" if is_accuracy else f"{found:.3f}")
        most = max((row.seconds for row in own if row.way.startswith("lamina")), default=0.0)
        table.add_row(*map(str, key), *cells, f"{most:.1f}")
    return table


def main(
    targets: str = "classes",
    images: str = "100,500,2000",
    classes: str = "5,10",
    sides: str = "32,96",
    times: str = "20s,1m",
    seeds: int = 3,
    ways: str = "scratch,pretrained,sweep,sklearn",
    held_out: bool = False,
    python: str | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure a grid of small data sets.

    Args:
        targets: what to predict: classes, brightness, red-blue, contrast, labels, binary, commas between.
        images: numbers of training images, commas between.
        classes: numbers of classes.
        sides: of the images, in pixels.
        times: for each command.
        seeds: how many draws of each case.
        ways: which to run: scratch, pretrained, sweep, sklearn, fastai.
        held_out: evaluate on held-out training images, to choose rules by.
        python: of an environment with fastai, for the way fastai.
        json_path: where to write every row, one JSON object a line.
    """
    data, wanted, rows = load_data("cifar10"), set(ways.split(",")), []
    lists = (targets, images, classes, sides, times)
    for target, count, class_count, side, limit, seed in itertools.product(
        *(one.split(",") for one in lists), range(seeds)
    ):
        case = Case(target, int(count), int(class_count), int(side), limit, seed)
        with tempfile.TemporaryDirectory() as place:
            folder = write_case(case, data, Path(place), is_held_out=held_out)
            found = []
            if "scratch" in wanted:
                found.append(run_lamina(case, folder, "lamina", "--from", "scratch"))
            if "pretrained" in wanted:
                found.append(run_lamina(case, folder, "lamina[pretrained]"))
            if "sweep" in wanted:
                sweep = [(net, px) for net, px in SWEEP if px <= int(side)]
                found += [run_lamina(case, folder, "sweep", net, "--size", str(px)) for net, px in sweep]
            if "sklearn" in wanted and target == "classes":
                found += run_sklearn(case, folder)
            if "fastai" in wanted and target == "classes":
                found.append(run_fastai(case, folder, python or sys.executable))
        for row in found:
            print(json.dumps(dataclasses.asdict(row)), file=sys.stderr)
            if json_path is not None:
                append_row(json_path, row)
        rows += found
    Console(width=160).print(compare(rows))


if __name__ == "__main__":
    tyro.cli(main)
