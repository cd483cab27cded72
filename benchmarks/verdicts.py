"""How often the verdicts of ``lamina compare`` are right, in simulated studies.

Without RUNS, all scores are drawn: where the assumptions of docs/explanation/verdicts.md hold, and where they
do not (``SIMULATIONS``). RUNS are runs of one experiment with different seeds, as ``lamina train
NET --seeds 32`` trains them; studies are then drawn from their stored logits.

- ``equal``: A and B are different runs, drawn without replacement, so they share none and differ
  only by chance; images are drawn with replacement. The fraction of studies that claim a
  difference, at one look and at any of three.
- ``gain``: the same images are made correct in every seed of A: ``--gain`` of all images on
  average. A pilot study with 8 seeds announces the number of seeds that detects it; a second study
  of that size should detect it in 80 %. Runs are drawn with replacement, because that may be more
  than there are.

    python benchmarks/verdicts.py --studies 500
    lamina train cnn-s --recipe quick --seeds 32 --name base
    python benchmarks/verdicts.py runs/base-seed* --json verdicts.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from lamina import load_run
from lamina.errors import LaminaError
from lamina.evaluation.intervals import wilson_interval
from lamina.evaluation.paired import LOOKS, Effect, measure_effect, score_images, seed_deviation

PILOT_SEEDS = 8
Rows: TypeAlias = dict[tuple[str, str], list[bool]]
"""Whether each study claims a difference, by question and number of seeds."""


Simulation: TypeAlias = Callable[[int, np.random.Generator], bool]
"""Whether a study with so many seeds claims a difference."""


def draw_hits(
    seed_shifts: np.ndarray, shape: tuple[int, int], generator: np.random.Generator
) -> np.ndarray:
    """Which images A and B predict correctly: (2, seeds, images), all images of a group alike.

    ``seed_shifts`` (2, seeds) change the ease of all images; ``shape`` is that of groups by images.
    """
    groups, size = shape
    seeds = seed_shifts.shape[1]
    ease = generator.normal(1.0, 1.5, (groups, size))
    by_group = generator.normal(0, 0.7, (2, 1, groups, 1))
    by_seed = seed_shifts[:, :, None, None]
    rest = generator.normal(size=(2, seeds, groups, size))
    return (ease + by_group + by_seed + rest > 0).astype(float).reshape(2, seeds, -1)


def simulate_equal(shape: tuple[int, int], has_groups: bool) -> Simulation:
    """Equal experiments on images of groups, which the comparison counts or not."""

    def claims_difference(seeds: int, generator: np.random.Generator) -> bool:
        shifts = generator.normal(0, 0.05, (2, seeds))
        first, second = draw_hits(shifts, shape, generator)
        groups = torch.arange(shape[0]).repeat_interleave(shape[1]) if has_groups else None
        effect = measure_effect(first - second, "accuracy", groups)
        return effect.judge(0.005) in ("better", "worse")

    return claims_difference


def simulate_collapses(seeds: int, generator: np.random.Generator) -> bool:
    """A is better by 1 point, but worse by 9 points in one of ten seeds: the means are equal."""
    collapses = generator.random((seeds, 1)) < 0.1
    by_seed = np.where(collapses, -0.09, 0.01) + generator.normal(0, 0.005, (seeds, 1))
    differences = by_seed + generator.normal(0, 0.3, (1, 2000)) * np.ones((seeds, 1))
    return measure_effect(differences).judge(0.005) in ("better", "worse")


SIMULATIONS: dict[str, Simulation] = {
    "equal nets, 2,000 images": simulate_equal((2000, 1), has_groups=True),
    "equal nets, 50 groups of 40 images": simulate_equal((50, 40), has_groups=True),
    "the same, counted as images": simulate_equal((50, 40), has_groups=False),
    "equal nets, 10 groups of 40 images": simulate_equal((10, 40), has_groups=True),
    "equal means, A collapses in 10 % of seeds": simulate_collapses,
}


def simulate(studies: int) -> Rows:
    rows: Rows = {}
    for name, claims_difference in SIMULATIONS.items():
        for seeds in (4, 8, 16):
            generator = np.random.default_rng(seeds)
            rows[name, str(seeds)] = [claims_difference(seeds, generator) for _ in range(studies)]
    return rows


def draw_equal(table: np.ndarray, seeds: int, generator: np.random.Generator) -> np.ndarray:
    """The differences of A and B, by seed and image, in a study of equal experiments."""
    runs, images = table.shape
    order = generator.permutation(runs)[: 2 * seeds]
    drawn = table[:, generator.integers(0, images, images)]
    return drawn[order[:seeds]] - drawn[order[seeds:]]


def draw_gain(table: np.ndarray, seeds: int, generator: np.random.Generator, gain: float) -> Effect:
    """The effect in a study whose A has the ``gain``."""
    runs, images = table.shape
    drawn = table[:, generator.integers(0, images, images)]
    first, second = (drawn[generator.integers(0, runs, seeds)] for _ in range(2))
    corrected = generator.random(images) < gain / (1 - table.mean())
    return measure_effect(np.where(corrected, 1.0, first) - second)


def claims(differences: np.ndarray, alpha: float, margin: float) -> bool:
    return measure_effect(differences).judge(margin, alpha) in ("better", "worse")


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    studies: int = 200,
    gain: float = 0.01,
    margin: float = 0.005,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Simulate studies, also from the logits of runs; print how often they claim a difference.

    Args:
        runs: folders of runs that differ only in their seed, at least 8, or none.
        studies: number of simulated studies.
        gain: injected gain in accuracy.
        margin: margin of the verdicts.
        json_file: file to write the rows to, one JSON object per line.
    """
    if not runs:
        report(simulate(studies), json_file)
        return
    if len(runs) < 8:
        sys.exit(
            f"There are {len(runs)} runs, but the simulation needs at least 8. Use lamina train NET"
            " --seeds 32."
        )
    try:
        stored = [load_run(path) for path in runs]
        table = np.stack([score_images(run.task, run.outputs["test"]) for run in stored])
    except LaminaError as error:
        sys.exit(str(error))
    spread = 100 * table.mean(axis=1).std(ddof=1)
    print(
        f"{len(runs)} runs, {table.shape[1]:,} images, accuracy {100 * table.mean():.2f} %, seeds"
        f" ±{spread:.2f}, without the images' part ±{100 * seed_deviation(table):.2f}"
    )
    generator = np.random.default_rng(0)
    outcomes: Rows = {}
    known = [seeds for seeds in (2, 4, 8, 16) if 2 * seeds <= len(runs)]
    for seeds in known:
        equal = [draw_equal(table, seeds, generator) for _ in range(studies)]
        outcomes["equal: a difference is claimed", str(seeds)] = [
            claims(study, 0.05, margin) for study in equal
        ]
    looks = [seeds for seeds in LOOKS if seeds in known]
    drawn = [draw_equal(table, max(looks), generator) for _ in range(studies)]
    outcomes["equal: claimed at any look", ", ".join(map(str, looks))] = [
        any(claims(study[:seeds], LOOKS[seeds], margin) for seeds in looks) for study in drawn
    ]
    pilots = [
        draw_gain(table, PILOT_SEEDS, generator, gain).seeds_to_detect(gain) for _ in range(studies)
    ]
    needed = [seeds for seeds in pilots if seeds is not None]
    if needed:
        low, middle, high = np.percentile(needed, (5, 50, 95))
        announced = f"{middle:.0f} (5 to 95 %: {low:.0f} to {high:.0f})"
        outcomes[f"gain of {100 * gain:g} points: detected", announced] = [
            draw_gain(table, seeds, generator, gain).judge(margin) == "better" for seeds in needed
        ]
    outcomes["gain: more than 1,000 seeds", str(PILOT_SEEDS)] = [seeds is None for seeds in pilots]
    report(outcomes, json_file)


def report(outcomes: Rows, json_file: Path | None) -> None:
    shown = Table("question", "seeds", "studies", "fraction", "95 % interval")
    rows = []
    for (question, seeds), claimed in outcomes.items():
        interval = wilson_interval(sum(claimed), len(claimed))
        fraction = sum(claimed) / len(claimed)
        ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
        shown.add_row(question, seeds, str(len(claimed)), f"{100 * fraction:.1f} %", ends)
        row = {"question": question, "seeds": seeds, "studies": len(claimed), "fraction": fraction}
        rows.append(json.dumps(row | dataclasses.asdict(interval)) + "\n")
    Console().print(shown)
    if json_file is not None:
        json_file.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
