"""The share of a training step that preparing a batch takes: gather, augment, resize, normalize.

Each net trains two of eight epochs with ``lamina.Training``. Then the benchmark reads the batches
of the second epoch again, in the same order, with the same functions and random choices. With
progressive resizing these images are small: reading has its largest share there. Results are
medians over the turns.

    python benchmarks/data_path.py --nets mlp,cnn:article,cnn:best,cnn-s:best,cnn-s:quick
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import tyro
from processes import read_entry
from rich.console import Console
from rich.table import Table

from lamina import Epoch, Images, Recipe, Training, load_data, load_net
from lamina.errors import LaminaError
from lamina.training.augment import draw_choices, gather_batch, shrink_batch
from lamina.training.randomness import derive_generator
from lamina.training.schedule import find_size_fraction


@dataclasses.dataclass(frozen=True)
class Row:
    """Medians over the turns, in seconds per step."""

    net: str
    batch_size: int
    reading_seconds: float
    step_seconds: float

    @property
    def share(self) -> float:
        """Reading time as a fraction of the step's time."""
        return self.reading_seconds / self.step_seconds


def train_epoch(net_name: str, images: Images, recipe: Recipe) -> tuple[Training, float]:
    """Train two epochs, the first as a warm-up; return the training and the second's seconds."""
    training = Training(load_net(net_name), images, dataclasses.replace(recipe, device="cpu"))
    epochs = (event.train_seconds for event in training if isinstance(event, Epoch))
    next(epochs)
    return training, next(epochs)


def read_epoch(training: Training, images: Images) -> float:
    """Prepare all batches of the second epoch for the net and return the seconds."""
    recipe, pixels, epoch = training.recipe, torch.from_numpy(images.pixels), 1
    fraction = find_size_fraction(recipe, epoch)
    started = time.perf_counter()
    order = torch.randperm(len(pixels), generator=derive_generator(recipe.seed, "order", epoch))
    choices = draw_choices(recipe, epoch, pixels)
    with torch.no_grad():
        for indices in order.split(recipe.batch_size):
            batch = gather_batch(pixels, indices, choices)
            training.model.normalize(shrink_batch(batch, fraction))
    return time.perf_counter() - started


def main(
    nets: str = "mlp,cnn:article,cnn:best,cnn-s:best,cnn-s:quick",
    turns: int = 3,
    images: int = 10_000,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure the share of reading in a step of each net.

    Args:
        nets: nets of the zoo, separated by commas; NET:RECIPE selects a recipe.
        turns: number of measurements of each net.
        images: images per epoch, spread evenly over the training set.
        json_path: file for the results, one JSON object per line.
    """
    data = load_data("cifar10").train
    sample = data.take_evenly(images)
    found: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, int] = {}
    for _ in range(turns):
        for who in nets.split(","):
            net_name, recipe = read_entry(who)
            recipe = dataclasses.replace(recipe, epochs=8)
            training, seconds = train_epoch(net_name, sample, recipe)
            steps = training.steps_per_epoch
            found.setdefault(who, []).append(
                (read_epoch(training, sample) / steps, seconds / steps)
            )
            sizes[who] = recipe.batch_size
    rows = [
        Row(
            who,
            sizes[who],
            *(statistics.median(turn[part] for turn in turns_of) for part in (0, 1)),
        )
        for who, turns_of in found.items()
    ]
    table = Table("net", "batch", "reading ms", "step ms", "share of the step")
    for row in rows:
        table.add_row(
            row.net,
            str(row.batch_size),
            f"{1e3 * row.reading_seconds:.2f}",
            f"{1e3 * row.step_seconds:.2f}",
            f"{row.share:.1%}",
        )
    Console().print(table)
    if json_path is not None:
        lines = ({**dataclasses.asdict(row), "share": row.share} for row in rows)
        json_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
