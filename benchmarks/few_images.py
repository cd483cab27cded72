"""Fifty training images per class: pretrained EfficientNet-Lite0 and ``cnn-m`` from random weights.

Each seed draws training images from CIFAR-10; all test images are evaluated once, at the end.
EfficientNet-Lite0 starts from the ImageNet weights that the extra lamina[pretrained] installs. It
is trained with the recipe ``default`` (a fitted head, then all layers), on enlarged images.
``cnn-m`` uses its own recipe with batches of 50 and 30 epochs, which were best on held-out images.
ImageNet contains images of all ten classes.

Seconds are training steps only, without decoding and evaluation.

    python benchmarks/few_images.py --seeds 3 --sizes 64,96,128,224 --json few.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from article import test_split
from PIL import Image
from processes import append_row
from rich.console import Console
from rich.table import Table

from lamina import Dataset, Images, Preparation, Training, evaluate, load_data, load_net, zoo
from lamina.errors import LaminaError
from lamina.evaluation.intervals import mean_interval
from lamina.training.pretrained import PACKAGED, PACKAGES, RECIPES, open_timm_net
from lamina.training.randomness import derive_seed, seeded


@dataclasses.dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        how: net, recipe and image size.
        seed: seed of the drawn images and of the training.
        train_seconds: time of the training steps.
        test_seconds: time of the evaluation.
        accuracy: test accuracy, a fraction.
    """

    how: str
    seed: int
    train_seconds: float
    test_seconds: float
    accuracy: float


def draw_rows(images: Images, a_class: int, seed: int) -> list[int]:
    """Draw ``a_class`` images of each class."""
    generator = np.random.default_rng(seed)
    classes = range(len(images.target_names))
    return [
        int(row)
        for number in classes
        for row in generator.permutation(np.flatnonzero(images.targets == number))[:a_class]
    ]


def write_images(images: Images, rows: Iterator[int] | list[int], folder: Path) -> None:
    for row in rows:
        path = folder / images.target_names[images.targets[row]] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(images.pixels[row])).save(path)


def write_source(data: Dataset, test: Path, a_class: int, seed: int, folder: Path) -> Path:
    """Write the drawn images and link all test images into a folder."""
    write_images(data.train, draw_rows(data.train, a_class, seed), folder / "train")
    for file in test.glob("*/*"):
        path = folder / "test" / file.relative_to(test)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, path)
    return folder


def train_and_test(how: str, recipe_name: str, data: Dataset, seed: int) -> Row:
    """Train EfficientNet-Lite0 with a recipe, or ``cnn-m`` without one, and evaluate once."""
    if recipe_name:
        recipe = dataclasses.replace(RECIPES[recipe_name], seed=seed)
        net = open_timm_net(PACKAGES[0].net, PACKAGED, print)
        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            body = net.module(data.train.shape, len(data.train.target_names))
        training = Training(body, data.train, recipe)
    else:
        recipe = dataclasses.replace(zoo.load_recipe("cnn-m"), batch_size=50, epochs=30, seed=seed)
        training = Training(load_net("cnn-m"), data.train, recipe)
    start = time.perf_counter()
    for _ in training:
        pass
    trained = time.perf_counter()
    report = evaluate(training.model, test_split(data))
    return Row(how, seed, trained - start, time.perf_counter() - trained, report.score.value)


def compare(rows: list[Row]) -> Table:
    """Tabulate the mean accuracy with its interval, and mean seconds."""
    table = Table("what", "test accuracy", "95 % interval", "s of training", "each seed")
    for how in dict.fromkeys(row.how for row in rows):
        own = [row for row in rows if row.how == how]
        found = mean_interval([100 * row.accuracy for row in own])
        interval = "–" if found.low is None else f"{found.low:.1f} – {found.high:.1f}"
        seconds = mean_interval([row.train_seconds for row in own]).mean
        each = ", ".join(f"{100 * row.accuracy:.1f}" for row in own)
        table.add_row(how, f"{found.mean:.1f}", interval, f"{seconds:.0f}", each)
    return table


def main(
    seeds: int = 3,
    images_per_class: int = 50,
    sizes: str = "64,96,128,224",
    test_count: int | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train with few images, from pretrained and from random weights.

    Args:
        seeds: number of draws of images.
        images_per_class: training images per class.
        sizes: image sizes for EfficientNet-Lite0 in px, separated by commas; cnn-m gets the images
            at 32 px.
        test_count: number of test images, spread evenly, for a quick trial; by default all.
        json_path: file for the results, one JSON object per line.
    """
    data = load_data("cifar10")
    test_images = test_split(data)
    if test_count is not None:
        test_images = test_images.take_evenly(test_count)
    sides = [int(size) for size in sizes.split(",")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        test = Path(place) / "test"
        write_images(test_images, list(range(len(test_images))), test)
        for seed in range(seeds):
            # Enlarged test images take gigabytes, so the cache is temporary.
            os.environ["LAMINA_CACHE"] = str(Path(place) / f"cache-{seed}")
            source = write_source(data, test, images_per_class, seed, Path(place) / f"seed-{seed}")
            for side, recipe_name in [(32, ""), *((side, "default") for side in sides)]:
                how = (
                    f"lite0, {recipe_name}, {side} px"
                    if recipe_name
                    else f"cnn-m from random weights, {side} px"
                )
                preparation = Preparation(size_px=side, val_fraction=0.0)
                rows.append(
                    train_and_test(how, recipe_name, load_data(str(source), preparation), seed)
                )
                print(json.dumps(dataclasses.asdict(rows[-1])), file=sys.stderr)
                if json_path is not None:
                    append_row(json_path, rows[-1])
    Console().print(compare(rows))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
