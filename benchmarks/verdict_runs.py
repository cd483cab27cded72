"""Train nets with many seeds, and store which test images each predicts correctly.

Two nets on CIFAR-10, and two on scikit-learn's digits, whose last 500 images, by other writers, are
``test``. The files are read by ``benchmarks/verdicts.py`` and by ``lamina compare``. Those with
``-shifts`` in their names have every tenth test image five times, shifted by up to 4 px: the copies
of an image are a group, as the images of one patient are.

    LAMINA_CIFAR10=cifar10-images.zip python benchmarks/verdict_runs.py --seeds 60
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
import tyro
from sklearn.datasets import load_digits

from lamina import (
    Dataset,
    Images,
    Recipe,
    Run,
    load_data,
    load_recipe,
    load_run,
    predict_logits,
)
from lamina.evaluation.paired import score_images
from lamina.studies.seeds import iter_seeds

FOLDER = Path(__file__).parent / "results" / "verdict-scores"
SHIFTS_PX = ((0, 0), (4, 0), (-4, 0), (0, 4), (0, -4))
SHIFTED_IMAGES = 1000
DIGITS_TO_TRAIN = 1297
LINEAR = "Flatten(), Output()"


@dataclasses.dataclass(frozen=True)
class Case:
    """A net with its recipe on a data set."""

    name: str
    net: str
    recipe: Recipe


CIFAR10 = (
    Case("cifar10-mlp", "mlp", dataclasses.replace(load_recipe("mlp"), epochs=5)),
    Case("cifar10-cnn-s", "cnn-s", dataclasses.replace(load_recipe("cnn-s"), epochs=1)),
)
DIGITS = (
    Case("digits-mlp", "mlp", Recipe(epochs=10)),
    Case("digits-linear", LINEAR, Recipe(epochs=10)),
)


def load_small() -> Dataset:
    """The digits: 8×8 px, 10 classes."""
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    targets = digits.target
    train = Images.from_arrays(pixels[:DIGITS_TO_TRAIN], targets[:DIGITS_TO_TRAIN])
    test = Images.from_arrays(pixels[DIGITS_TO_TRAIN:], targets[DIGITS_TO_TRAIN:], split="test")
    return Dataset.from_images(train, test=test)


def shift(images: Images) -> Images:
    """Images of all classes, shifted; the copies of an image follow each other."""
    places = np.arange(0, len(images), len(images) // SHIFTED_IMAGES)[:SHIFTED_IMAGES]
    pixels = images.pixels[places]
    copies = [np.roll(pixels, shift, axis=(1, 2)) for shift in SHIFTS_PX]
    shifted = images.take(np.repeat(places, len(SHIFTS_PX)))
    return dataclasses.replace(
        shifted, pixels=np.stack(copies, axis=1).reshape(-1, *pixels.shape[1:])
    )


def score_shifts(run: Run, shifted: Images) -> np.ndarray:
    """Whether the run predicts each of the shifted images correctly."""
    logits = predict_logits(run.load_model(), shifted.pixels)
    hits: np.ndarray = logits.argmax(1) == shifted.targets
    return hits


def store(case: Case, dataset: Dataset, seeds: int, runs_dir: Path) -> None:
    """Train the case with all seeds, and write the scores."""
    assert dataset.test is not None
    is_large = len(dataset.test) > SHIFTED_IMAGES
    shifted = shift(dataset.test) if is_large else None
    scores = []
    shifted_scores = []
    *_, result = iter_seeds(
        dataset, case.net, case.recipe, seeds=seeds, name=case.name, runs_dir=runs_dir
    )
    print(f"{case.name}: {result}", flush=True)
    for path in result.runs:
        run = load_run(path)
        scores.append(score_images(run.task, run.outputs["test"]))
        if shifted is not None:
            shifted_scores.append(score_shifts(run, shifted))
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{case.name}.npz", scores=np.stack(scores).astype(np.uint8))
    if shifted is not None:
        groups = np.repeat(np.arange(SHIFTED_IMAGES), len(SHIFTS_PX)).astype(np.int16)
        table = np.stack(shifted_scores).astype(np.uint8)
        np.savez_compressed(FOLDER / f"{case.name}-shifts.npz", scores=table, groups=groups)


def main(seeds: int = 60, runs_dir: Path | None = None) -> None:
    """Train all cases, and write their scores to ``results/verdict-scores``.

    Args:
        seeds: number of runs of each net.
        runs_dir: folder of the runs, which are continued; by default a temporary one.
    """
    runs_dir = runs_dir or Path(tempfile.mkdtemp())
    for case in DIGITS:
        store(case, load_small(), seeds, runs_dir)
    cifar10 = load_data(os.environ.get("LAMINA_CIFAR10", "cifar10"))
    for case in CIFAR10:
        store(case, cifar10, seeds, runs_dir)


if __name__ == "__main__":
    tyro.cli(main)
