"""The share of this machine's matrix-product rate that training reaches.

The ceiling is the best rate of square matrix products of several sizes in torch, in float32 and in
bfloat16. A net's rate is measured over whole epochs of ``lamina.Training``, with gathering,
augmentation, forward, backward and optimizer. A step counts as 3 × multiply-adds × 2 floating-point
operations per image: the forward pass, and as much again for each of the gradients of weights and
inputs. "Needed" counts, with torch's own counter, only the products that the net computes: the
first layer needs no gradient of its inputs, and a frozen layer none of its weights. Each fraction
is of the ceiling of the net's number format.

Every turn measures the ceiling and then one epoch of each net, after one epoch of warm-up. The
result of a net is the median of its turns, the ceiling the best of all.

    python benchmarks/ceiling.py --nets mlp,cnn --batch-size 100,500 --precision bf16
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from processes import read_entry
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lamina import Epoch, Images, Net, Step, Training, load_data, load_net, zoo
from lamina.errors import LaminaError

SIDES = (1024, 2048, 3072, 4096)
SECONDS_A_SIDE = 0.5
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Row:
    """The speed of one net.

    Attributes:
        net: NET, or NET:RECIPE.
        batch_size: images per step.
        precision: number format of the training.
        images_per_second: median over the turns.
        flop_per_image: 3 × multiply-adds × 2.
        needed_flop_per_image: floating-point operations of the necessary products.
        ceiling_flop_per_second: rate of the best matrix product in the same format.
    """

    net: str
    batch_size: int
    precision: str
    images_per_second: float
    flop_per_image: int
    needed_flop_per_image: int
    ceiling_flop_per_second: float

    @property
    def fraction(self) -> float:
        """Share of the ceiling, with a step counted as three forward passes."""
        return self.images_per_second * self.flop_per_image / self.ceiling_flop_per_second

    @property
    def needed_fraction(self) -> float:
        """Share of the ceiling, counting the necessary products only."""
        return self.images_per_second * self.needed_flop_per_image / self.ceiling_flop_per_second


@dataclasses.dataclass
class Candidate:
    """A net that trains one epoch at a time."""

    name: str
    net: Net
    training: Training
    events: Iterator[Step | Epoch]
    images_per_second: list[float] = dataclasses.field(default_factory=list)

    def train_epoch(self) -> float:
        """Train the next epoch and return its images per second."""
        return next(event for event in self.events if isinstance(event, Epoch)).images_per_second

    @property
    def format(self) -> str:
        """The number format of the training."""
        return self.training.precision.value


def measure_ceiling(number_format: str) -> float:
    """Floating-point operations per second of the fastest of several square matrix products."""
    best = 0.0
    for side in SIDES:
        factors = torch.randn(2, side, side).to(FORMATS[number_format])
        end = time.perf_counter() + SECONDS_A_SIDE
        for turn in itertools.count():
            start = time.perf_counter()
            torch.mm(*factors)
            seconds = time.perf_counter() - start
            if turn:  # the first product includes choosing the kernels
                best = max(best, 2 * side**3 / seconds)
            if turn and time.perf_counter() > end:
                break
    return best


def count_needed_flop(net: Net, images: Images) -> int:
    """Floating-point operations per image of a forward and a backward pass, by torch's counter."""
    module, sample = net.module(images.shape), torch.randn(4, *images.shape)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(module(sample), torch.zeros(4, dtype=torch.int64)).backward()
    return counter.get_total_flops() // 4


def prepare(name: str, images: Images, batch_size: int, precision: str, epochs: int) -> Candidate:
    net_name, recipe = read_entry(name)
    # No progressive resizing: the operations are counted for whole images.
    recipe = dataclasses.replace(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,
        start_size_fraction=0.0,
        device="cpu",
    )
    training = Training(load_net(net_name), images, recipe)
    net = load_net(net_name).check(images.shape, training.model.task.outputs)
    return Candidate(name, net, training, iter(training))


def compare(rows: list[Row]) -> Table:
    """Tabulate rate and fraction of the ceiling, for counted and for needed operations."""
    table = Table()
    for head in (
        "net",
        "batch",
        "format",
        "images/s",
        "GFLOP/s",
        "of\nceiling",
        "needed",
        "of\nceiling",
    ):
        table.add_column(head, justify="left" if head == "net" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.net,
            str(row.batch_size),
            row.precision,
            f"{row.images_per_second:,.0f}",
            f"{row.images_per_second * row.flop_per_image / 1e9:.0f}",
            f"{row.fraction:.1%}",
            f"{row.images_per_second * row.needed_flop_per_image / 1e9:.0f}",
            f"{row.needed_fraction:.1%}",
        )
    return table


def main(
    nets: str = ",".join(zoo.NAMES),
    batch_size: str = "500",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    turns: int = 3,
    images: int = 10_000,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Compare the training of each net with this machine's matrix products.

    Args:
        nets: nets of the zoo, separated by commas; NET:RECIPE selects a recipe.
        batch_size: images per step, separated by commas.
        precision: number format.
        turns: number of measured epochs of each net.
        images: images per epoch, spread evenly over the training set.
        json_path: file for the results, one JSON object per line.
    """
    data = load_data("cifar10").train
    sample = data.take_evenly(images)
    candidates = [
        prepare(name.strip(), sample, int(size), precision, 1 + turns)
        for name in nets.split(",")
        for size in batch_size.split(",")
    ]
    # Only the formats in use: without bf16 arithmetic, a single large product in bf16 takes
    # minutes.
    ceilings = {candidate.format: 0.0 for candidate in candidates}
    for candidate in candidates:
        candidate.train_epoch()
    for turn in range(turns):
        for number_format, best in ceilings.items():
            ceilings[number_format] = max(best, measure_ceiling(number_format))
        for candidate in candidates:
            candidate.images_per_second.append(candidate.train_epoch())
        print(f"turn {turn + 1}/{turns}: " + format_ceilings(ceilings), file=sys.stderr)
    rows = [
        Row(
            net=candidate.name,
            batch_size=candidate.training.recipe.batch_size,
            precision=candidate.format,
            images_per_second=statistics.median(candidate.images_per_second),
            flop_per_image=6 * candidate.net.multiply_adds(sample.shape),
            needed_flop_per_image=count_needed_flop(candidate.net, sample),
            ceiling_flop_per_second=ceilings[candidate.format],
        )
        for candidate in candidates
    ]
    print(f"ceiling, {torch.get_num_threads()} threads: {format_ceilings(ceilings)}")
    Console().print(compare(rows))
    if json_path is not None:
        lines = ({**dataclasses.asdict(row), "fraction": row.fraction} for row in rows)
        json_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def format_ceilings(ceilings: dict[str, float]) -> str:
    return ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {number_format}" for number_format, rate in ceilings.items()
    )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
