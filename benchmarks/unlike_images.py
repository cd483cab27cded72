"""Are images of other sets found to be unlike the training images, at a fixed rate of false alarms?

Trains a net on six classes of CIFAR-10, sets each measure's cut-off on `val`, so that one in 100
images exceeds it, and counts the images above it: test images of these six classes (false alarms),
of the four other classes, `shapes`, scikit-learn's digits, uniform noise, and images of one color.

    export LAMINA_CIFAR10=cifar10-images.zip
    python benchmarks/unlike_images.py cnn-s
    python benchmarks/unlike_images.py timm:tf_efficientnet_lite0.in1k --size 96
"""

from __future__ import annotations

import dataclasses
import json as json_format
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from sklearn.datasets import load_digits

from lamina import Dataset, Images, load_data, load_recipe, start_run
from lamina.data.decoding import fit_pixels
from lamina.insight.neighbors import find_neighbors, normalize
from lamina.training.prediction import predict_with_features
from lamina.training.pretrained import RECIPES

FALSE_ALARMS = 0.01
NEIGHBORS = 10
REFERENCES = (300, 1000, 100_000)


def take_classes(images: Images, classes: range, a_class: int, start: int = 0) -> Images:
    """Images of some classes, the same number of each, numbered from 0."""
    rows = [np.flatnonzero(images.targets == number)[start : start + a_class] for number in classes]
    taken = images.take(np.sort(np.concatenate(rows)))
    names = images.target_names[classes.start : classes.stop]
    return dataclasses.replace(taken, targets=taken.targets - classes.start, target_names=names)


def make_others(test: Images, side_px: int) -> dict[str, np.ndarray]:
    """Pixels of images that a net for the first six classes has never seen."""
    random = np.random.default_rng(0)
    digits = np.repeat((load_digits().images * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    colors = np.broadcast_to(
        random.integers(0, 256, (500, 1, 1, 3), dtype=np.uint8), (500, 32, 32, 3)
    )
    found = {
        "test": take_classes(test, range(6), 500).pixels,
        "four other classes": take_classes(test, range(6, 10), 500).pixels,
        "shapes": load_data("shapes").test.pixels,
        "digits": digits,
        "noise": random.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8),
        "one color": np.ascontiguousarray(colors),
    }
    return {name: fit_pixels(pixels, side_px, "stretch") for name, pixels in found.items()}


def measure(
    logits: np.ndarray, features: torch.Tensor, known: torch.Tensor
) -> dict[str, np.ndarray]:
    """Several measures of how unlike the training images each image is."""
    values = torch.from_numpy(logits).double()
    found = {
        "1 - probability": 1 - values.softmax(1).amax(1).numpy(),
        "energy": -values.logsumexp(1).numpy(),
    }
    unit = normalize(features)
    for count in REFERENCES:
        part = known[torch.linspace(0, len(known) - 1, min(count, len(known))).long()]
        cosines, _ = find_neighbors(unit, part, NEIGHBORS)
        found[f"isolation, {len(part)} training images"] = 1 - cosines.mean(1).numpy()
    return found


def main(
    net: tyro.conf.Positional[str],
    size: int = 32,
    a_class: int = 2000,
    epochs: int = 8,
    json: Path | None = None,
) -> None:
    """Train on six classes; print the share of each set that each measure finds unlike them.

    Args:
        net: name of a net in the zoo, or timm:NAME.
        size: side of the images in pixels.
        a_class: training images per class.
        epochs: epochs of training.
        json: file for the results.
    """
    whole = load_data("cifar10")
    train, val = (
        take_classes(whole.train, range(6), *part) for part in ((a_class,), (200, a_class))
    )
    splits = [
        dataclasses.replace(one, pixels=fit_pixels(one.pixels, size, "stretch"))
        for one in (train, val)
    ]
    dataset = Dataset.from_images(splits[0], dataclasses.replace(splits[1], split="val"))
    recipe = RECIPES["default"] if net.startswith("timm:") else load_recipe(net)
    began = time.perf_counter()
    run = start_run(
        dataset, net, dataclasses.replace(recipe, epochs=epochs), runs_dir=tempfile.mkdtemp()
    )
    report = run.train(progress=False)
    print(f"{net}: {time.perf_counter() - began:.0f} s, {report}")
    model = run.load_model()
    known = normalize(predict_with_features(model, dataset.train.pixels)[1])
    print(f"{known.shape[1]} features")
    on_val = measure(*predict_with_features(model, dataset.val.pixels), known)
    cutoffs = {
        name: float(np.quantile(values, 1 - FALSE_ALARMS)) for name, values in on_val.items()
    }
    others = make_others(whole.test, size)
    found = {
        other: measure(*predict_with_features(model, pixels), known)
        for other, pixels in others.items()
    }
    shares = {
        name: {other: float((values[name] > cutoff).mean()) for other, values in found.items()}
        for name, cutoff in cutoffs.items()
    }
    print(f"{'':45}" + "".join(f"{other:>20}" for other in found))
    for name, by_set in shares.items():
        print(f"{name:45}" + "".join(f"{100 * share:18.1f} %" for share in by_set.values()))
    if json is not None:
        json.write_text(json_format.dumps({"net": net, "shares": shares}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
