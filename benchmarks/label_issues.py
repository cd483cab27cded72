"""Finding injected label errors and near-duplicates in CIFAR-10: precision, recall and seconds.

For label errors, a fraction of the labels is exchanged between images of different classes. The
result is compared with the exchanged labels; CIFAR-10's own few label errors count as correct
labels. For near-duplicates, copies of some images are added: translated by 1 or 2 px, mirrored,
saved as JPEG of quality 50, or with brightness, contrast and color changed by up to 10 %.

    export LAMINA_CIFAR10=cifar10-images.zip
    python benchmarks/label_issues.py labels --a-class 2000
    python benchmarks/label_issues.py labels --a-class 2000 --scratch
    python benchmarks/label_issues.py labels --a-class 5000 --classes 10
    python benchmarks/label_issues.py duplicates --images 10000 --pairs 300
"""

from __future__ import annotations

import dataclasses
import io
import json as json_format
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from PIL import Image, ImageEnhance

from lamina import Dataset, Images, load_data
from lamina.insight.confident_learning import (
    find_disagreements,
    measure_agreement,
    select_by_confident_learning,
)
from lamina.insight.similarity import find_near_duplicates, group_copies
from lamina.studies.cross_prediction import choose_nets, cross_predict
from lamina.training.pretrained import find_all_at_hand

CHANGES = ("translate", "mirror", "jpeg", "colors")


def take_classes(images: Images, a_class: int, first: int, classes: int) -> Images:
    """Take the first images of each class, from class ``first`` on."""
    chosen = range(first, first + classes)
    rows = np.concatenate([np.flatnonzero(images.targets == number)[:a_class] for number in chosen])
    taken, names = images.take(np.sort(rows)), images.target_names[first : first + classes]
    return dataclasses.replace(taken, targets=taken.targets - first, target_names=names)


def exchange_labels(images: Images, fraction: float, seed: int) -> Images:
    """Exchange the labels of a fraction of the images at random, for different ones if possible."""
    random = np.random.default_rng(seed)
    targets = np.array(images.targets)
    rows = random.choice(len(targets), round(fraction * len(targets)), replace=False)
    before = targets[rows]
    after = random.permutation(before)
    for place in np.flatnonzero(after == before):
        partners = np.flatnonzero((after != before[place]) & (before != after[place]))
        if after[place] == before[place] and len(partners):
            partner = random.choice(partners)
            after[[place, partner]] = after[[partner, place]]
    targets[rows] = after
    return dataclasses.replace(images, targets=targets)


def find_labels(
    a_class: int, first: int, classes: int, scratch: bool, error_fraction: float, seed: int
) -> dict[str, Any]:
    """Exchange labels, find label issues, and compare."""
    clean = take_classes(load_data("cifar10").train, a_class, first, classes)
    noisy = exchange_labels(clean, error_fraction, seed)
    started, cpu = time.perf_counter(), time.process_time()
    nets = choose_nets(noisy, None if scratch else next(iter(find_all_at_hand()), None))
    groups = group_copies(noisy.pixels, find_near_duplicates(noisy.pixels))
    compared = time.perf_counter() - started
    probabilities = cross_predict(nets, noisy, groups=groups).held_out
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    have_errors = noisy.targets != clean.targets
    print(f"{len(noisy):,} images, {' and '.join(map(str, nets))}")
    row: dict[str, Any] = {"images": len(noisy), "nets": [str(net) for net in nets]}
    for name, find in (
        ("confident learning", select_by_confident_learning),
        ("disagreement", find_disagreements),
    ):
        rows = find(probabilities, noisy.targets)
        found = int(have_errors[rows].sum())
        precision, recall = found / max(1, len(rows)), float(found / have_errors.sum())
        print(
            f"{name}: {len(rows):,} flagged, precision {precision:.3f}, recall {recall:.3f}, "
            f"{precision / have_errors.mean():.2f} times the recall of random picks"
        )
        row[name] = {"flagged": len(rows), "precision": precision, "recall": recall}
    accuracy = float((probabilities.argmax(axis=1) == clean.targets).mean())
    agreement = measure_agreement(noisy, probabilities).value
    print(
        f"held-out accuracy on the true labels {accuracy:.4f}, agreement with the given labels"
        f" {agreement:.4f}"
    )
    print(
        f"{seconds:.1f} s ({compared:.1f} s of it for near-duplicates), {cpu:.1f} s of processor"
        " time"
    )
    return row | {
        "held_out_accuracy": accuracy,
        "agreement": agreement,
        "seconds": seconds,
        "processor_seconds": cpu,
    }


def change(pixels: np.ndarray, how: str, random: np.random.Generator) -> np.ndarray:
    """Make a changed copy of an image."""
    height, width, _ = pixels.shape
    if how == "translate":
        down, right = random.choice([(y, x) for y in range(-2, 3) for x in range(-2, 3) if y or x])
        padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
        return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]
    if how == "mirror":
        return pixels[:, ::-1]
    image = Image.fromarray(pixels)
    if how == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=50)
        return np.asarray(Image.open(file).convert("RGB"))
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(0.9, 1.1))
    return np.asarray(image)


def find_duplicates(images: int, pairs: int, seed: int) -> dict[str, Any]:
    """Add copies, find near-duplicates, and compare."""
    data: Dataset = load_data("cifar10")
    random = np.random.default_rng(seed)
    pixels = data.train.pixels[random.permutation(len(data.train))[: images - pairs]]
    first = random.permutation(len(pixels))[:pairs].tolist()
    copies = [
        change(np.asarray(pixels[row]), CHANGES[place % 4], random)
        for place, row in enumerate(first)
    ]
    injected = {(row, len(pixels) + place): CHANGES[place % 4] for place, row in enumerate(first)}
    started, cpu = time.perf_counter(), time.process_time()
    found = find_near_duplicates(np.concatenate([pixels, np.stack(copies)]))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    keys = {(pair.first, pair.second) for pair in found}
    by_change = {how: sum(injected[key] == how for key in keys & set(injected)) for how in CHANGES}
    print(
        f"found {len(keys & set(injected))} of {pairs} injected pairs {by_change}, "
        f"and {len(keys - set(injected))} others"
    )
    print(f"{seconds:.1f} s, {cpu:.1f} s of processor time")
    row: dict[str, Any] = {"images": len(pixels) + pairs, "pairs": pairs, "found": by_change}
    return row | {"others": len(keys - set(injected)), "seconds": seconds, "processor_seconds": cpu}


def main(
    what: tyro.conf.Positional[Literal["labels", "duplicates"]],
    a_class: int = 2000,
    first: int = 0,
    classes: int = 5,
    scratch: bool = False,
    error_fraction: float = 0.2,
    images: int = 10_000,
    pairs: int = 300,
    seed: int = 1,
    json: Path | None = None,
) -> None:
    """Inject label errors or near-duplicates, and print how many are found.

    Args:
        what: what to inject.
        a_class: labels: images per class.
        first: labels: number of the first class.
        classes: labels: number of classes.
        scratch: labels: use no pretrained weights.
        error_fraction: labels: fraction of the labels to exchange.
        images: duplicates: number of images, including the copies.
        pairs: duplicates: number of copies.
        seed: seed of the injected errors or copies.
        json: file for the results.
    """
    if what == "labels":
        row = find_labels(a_class, first, classes, scratch, error_fraction, seed)
    else:
        row = find_duplicates(images, pairs, seed)
    if json is not None:
        json.write_text(
            json_format.dumps({"injected": what, "seed": seed, **row}) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    tyro.cli(main)
