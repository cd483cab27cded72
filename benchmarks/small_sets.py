r"""Small data sets within a time limit: lamina's own choice and other ways to use the time.

Each case is a folder of JPEGs drawn from CIFAR-10 by its seed, enlarged if ``--sides`` is over 32
px, with 200 test images per class. All ways get the same folder and the same time:

- ``lamina``: ``lamina train --data FOLDER --time TIME``, from random weights, and with the extra
  pretrained;
- ``sweep``: the best by test accuracy of ``lamina train NET --size SIDE --time TIME``, for three
  nets and two sizes;
- ``svc`` and ``logistic``: scikit-learn on standardized pixels at 32 px, without a time limit;
- ``fastai``: a ResNet-18 from random weights with fastai's defaults, as many epochs as fit
  (benchmarks/peer).

With ``--targets`` other than ``classes``, a table has targets computed from the pixels: numbers
(``brightness``, the difference of ``red-blue``, ``contrast``), three labels (``labels``), or yes
and no (``binary``: is it an animal?). Only ``lamina`` and ``sweep`` run for these. The result is
the error relative to the baseline, or the distance to a perfect score relative to the baseline's:
0.2 is a fifth.

``--held-out`` draws the test images from CIFAR-10's training images, for choosing rules. Without it
they are test images, for reporting.

    python benchmarks/small_sets.py --images 500 --sides 32,96 --classes 5,10 --times 20s,1m \
        --json small.json
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
"""Training images from this place on, in a fixed random order, are held out."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A set of images, its targets and a time limit."""

    targets: str
    images: int
    classes: int
    side_px: int
    time: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of a way on a case; ``detail`` is net and size, or why there is no result.

    ``score`` is the accuracy, the mean average precision or the mean absolute error; ``baseline``
    is the baseline's.
    """

    case: Case
    way: str
    detail: str
    score: float | None
    seconds: float
    baseline: float | None = None

    @property
    def result(self) -> float | None:
        """The accuracy in percent for classes, otherwise the error relative to the baseline."""
        if self.score is None:
            return None
        if self.case.targets == "classes" or self.baseline is None:
            return 100 * self.score
        best = 0.0 if self.case.targets in NUMBERS else 1.0
        return (best - self.score) / (best - self.baseline)


def choose_classes(data: Dataset, count: int) -> list[int]:
    """Choose two, five or ten of CIFAR-10's classes."""
    names = data.train.target_names
    return (
        list(range(len(names)))
        if count == len(names)
        else [names.index(name) for name in FIVE[:count]]
    )


def draw(
    images: Images, rows: np.ndarray, classes: list[int], a_class: int, seed: int
) -> dict[int, np.ndarray]:
    """Draw ``a_class`` of ``rows`` for each class."""
    order = np.random.default_rng(seed).permutation(rows)
    return {number: order[images.targets[order] == number][:a_class] for number in classes}


def write_case(case: Case, data: Dataset, folder: Path, *, is_held_out: bool) -> Path:
    """Write the case's folder with ``train`` and ``test``, or its table."""
    order = np.random.default_rng(99).permutation(len(data.train))
    sources = {
        "train": (data.train, order[:HELD_OUT_FROM]),
        "test": (data.train, order[HELD_OUT_FROM:]),
    }
    if not is_held_out:
        sources = {
            "train": (data.train, order),
            "test": (test_split(data), np.arange(len(test_split(data)))),
        }
    table = []
    for split, (images, rows) in sources.items():
        count = case.images // case.classes if split == "train" else TEST_IMAGES_A_CLASS
        for number, chosen in draw(
            images, rows, choose_classes(data, case.classes), count, case.seed
        ).items():
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
    """Compute an image's targets, by column."""
    gray = pixels.mean(axis=2)
    texture = np.abs(np.diff(gray, axis=0)).mean()
    match targets:
        case "brightness":
            return {targets: round(float(pixels.mean()) / 255, 4)}
        case "red-blue":
            return {targets: round(float(pixels[..., 0].mean() - pixels[..., 2].mean()), 3)}
        case "contrast":
            return {targets: round(float(gray.std()), 3)}
        case "labels":
            return {
                "animal": int(name in ANIMALS),
                "bright": int(gray.mean() > 120),
                "textured": int(texture > 12),
            }
        case "binary":
            return {"is it an animal?": "yes" if name in ANIMALS else "no"}
    return {}


def run_lamina(case: Case, folder: Path, way: str, *words: str) -> Row:
    """Run ``lamina train`` with an empty cache, timed from command to exit."""
    with tempfile.TemporaryDirectory() as place:
        command = [
            str(LAMINA),
            "train",
            *words,
            "--data",
            str(folder),
            "--time",
            case.time,
            "--seed",
            str(case.seed),
        ]
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
    return Row(
        case,
        way,
        f"{result['net']} {result['size_px']} px",
        score,
        seconds,
        result["baseline"]["value"],
    )


def run_sklearn(case: Case, folder: Path) -> list[Row]:
    """Fit both classifiers to pixels, if scikit-learn is installed."""
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
        accuracy = (
            make_pipeline(StandardScaler(), classifier).fit(x_train, y_train).score(x_test, y_test)
        )
        rows.append(Row(case, way, "32 px", float(accuracy), time.perf_counter() - began))
    return rows


def read_pixels(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Read a folder's images at 32 px as rows of pixels, with their classes."""
    files = sorted(folder.glob("*/*.jpg"))
    pixels = [
        np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BICUBIC), np.float32).ravel()
        for file in files
    ]
    return np.stack(pixels), [file.parent.name for file in files]


def run_fastai(case: Case, folder: Path, python: str) -> Row:
    """Train with fastai in another environment."""
    script = Path(__file__).parent / "peer" / "folder_with_fastai.py"
    began = time.perf_counter()
    done = subprocess.run(
        [python, str(script), str(folder), str(read_seconds("--times", case.time)), str(case.seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        return Row(
            case, "fastai", (done.stderr.strip().splitlines() or ["failed"])[-1], None, seconds
        )
    result = json.loads(done.stdout.splitlines()[-1])
    return Row(case, "fastai", f"{result['epochs']} epochs", result["accuracy"], seconds)


def compare(rows: list[Row]) -> Table:
    """Tabulate the mean over seeds of each way, and the best of the sweep."""
    ways = list(dict.fromkeys(row.way for row in rows))
    table = Table("targets", "images", "classes", "px", "time", *ways, "longest lamina command, s")
    for key in dict.fromkeys(dataclasses.astuple(row.case)[:5] for row in rows):
        own = [row for row in rows if dataclasses.astuple(row.case)[:5] == key]
        cells = []
        for way in ways:
            best: dict[str, list[float]] = {}
            for row in own:
                if row.way == way and row.result is not None:
                    best.setdefault(row.detail if way == "sweep" else "", []).append(row.result)
            means = [mean_interval(each).mean for each in best.values()]
            is_accuracy = key[0] == "classes"
            found = (max if is_accuracy else min)(means, default=None)
            cells.append(
                "–" if found is None else f"{found:.1f}" if is_accuracy else f"{found:.3f}"
            )
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
    """Measure a grid of small data sets. Lists are separated by commas.

    Args:
        targets: kinds of target: classes, brightness, red-blue, contrast, labels, binary.
        images: numbers of training images.
        classes: numbers of classes.
        sides: image sizes in px.
        times: time limits.
        seeds: number of draws of each case.
        ways: ways to run: scratch, pretrained, sweep, sklearn, fastai.
        held_out: evaluate on held-out training images, for choosing rules.
        python: Python with fastai, for the way fastai.
        json_path: file for the results, one JSON object per line.
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
                found.append(run_lamina(case, folder, "lamina", "--no-pretrained"))
            if "pretrained" in wanted:
                found.append(run_lamina(case, folder, "lamina[pretrained]"))
            if "sweep" in wanted:
                sweep = [(net, px) for net, px in SWEEP if px <= int(side)]
                found += [
                    run_lamina(case, folder, "sweep", net, "--size", str(px)) for net, px in sweep
                ]
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
