"""How often the verdicts of ``lamina compare`` are right, in studies simulated from the stored logits of many runs.

RUNS are runs of one experiment with different seeds, as ``lamina train NET --seeds 32`` trains them. A study draws
seeds for A and for B, and images, all with replacement, so A and B are equal.

- ``equal``: the fraction of studies that claim a difference, at one look and with looks at 4, 8 and 16 seeds.
- ``gain``: the same images are made correct in every seed of A: ``--gain`` of all images on average. A pilot study with
  8 seeds announces the number of seeds that detects it; a second study of that size should detect it in 80 %.

    lamina train cnn-s --recipe quick --seeds 32 --name base
    python benchmarks/verdicts.py runs/base-seed* --json verdicts.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from lamina import load_run
from lamina.errors import LaminaError
from lamina.evaluation.intervals import wilson_interval
from lamina.evaluation.paired import LOOKS, Effect, measure_effect, score_images

PILOT_SEEDS = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """The fraction of studies with an outcome, and its 95 % interval (Wilson)."""

    question: str
    seeds: str
    studies: int
    fraction: float
    low: float
    high: float
    wanted: str


def draw(table: np.ndarray, seeds: int, generator: np.random.Generator, gain: float = 0.0) -> Effect:
    """The effect in one study: A has the ``gain``, B is equal apart from it."""
    runs, images = table.shape
    drawn = table[:, generator.integers(0, images, images)]
    first, second = (drawn[generator.integers(0, runs, seeds)] for _ in range(2))
    corrected = generator.random(images) < gain / (1 - table.mean())
    return measure_effect(np.where(corrected, 1.0, first) - second)


def claims(effect: Effect, alpha: float, margin: float) -> bool:
    return effect.judge(margin, alpha) in ("better", "worse")


def show(question: str, seeds: str, found: list[bool], wanted: str) -> Row:
    interval = wilson_interval(sum(found), len(found))
    return Row(question, seeds, len(found), sum(found) / len(found), interval.low, interval.high, wanted)


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    studies: int = 200,
    gain: float = 0.01,
    margin: float = 0.005,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Simulate studies from the stored logits of runs, and print how often their verdicts are right.

    Args:
        runs: folders of runs that differ only in their seed, at least 4.
        studies: number of simulated studies.
        gain: injected gain in accuracy.
        margin: margin of the verdicts.
        json_file: file to write the rows to, one JSON object per line.
    """
    if len(runs) < 4:
        sys.exit(f"There are {len(runs)} runs, but the simulation needs at least 4. Use lamina train NET --seeds 32.")
    try:
        stored = [load_run(path) for path in runs]
        table = np.stack([score_images(run.task, run.outputs["test"]) for run in stored])
    except LaminaError as error:
        sys.exit(str(error))
    generator, rows = np.random.default_rng(0), []
    for seeds in LOOKS:
        found = [claims(draw(table, seeds, generator), 0.05, margin) for _ in range(studies)]
        rows.append(show("equal: a difference is claimed", str(seeds), found, "at most 5 %"))
    looks = []
    for _ in range(studies):
        drawn = table[:, generator.integers(0, table.shape[1], table.shape[1])]
        pairs = [drawn[generator.integers(0, len(table), max(LOOKS))] for _ in range(2)]
        effects = {seeds: measure_effect(pairs[0][:seeds] - pairs[1][:seeds]) for seeds in LOOKS}
        looks.append(any(claims(effects[seeds], alpha, margin) for seeds, alpha in LOOKS.items()))
    rows.append(show("equal: claimed at any look", "4, 8, 16", looks, "at most 5 %"))
    needed, detected = [], []
    for _ in range(studies):
        seeds = draw(table, PILOT_SEEDS, generator, gain).seeds_to_detect(gain)
        if seeds is not None:
            needed.append(seeds)
            detected.append(draw(table, seeds, generator, gain).judge(margin) == "better")
    if detected:
        low, middle, high = np.percentile(needed, (5, 50, 95))
        announced = f"{middle:.0f} (5 to 95 %: {low:.0f} to {high:.0f})"
        rows.append(show(f"gain of {100 * gain:g} points: detected", announced, detected, "80 %"))
    rows.append(
        show(
            "gain: more seeds will not help",
            str(PILOT_SEEDS),
            [False] * len(needed) + [True] * (studies - len(needed)),
            "–",
        )
    )
    shown = Table("question", "seeds", "studies", "fraction", "95 % interval", "wanted")
    for row in rows:
        ends = f"{100 * row.low:.1f} to {100 * row.high:.1f} %"
        shown.add_row(row.question, row.seeds, str(row.studies), f"{100 * row.fraction:.1f} %", ends, row.wanted)
    spread = 100 * table.mean(axis=1).std(ddof=1)
    print(f"{len(runs)} runs, {table.shape[1]:,} images, accuracy {100 * table.mean():.2f} %, seeds ±{spread:.2f}")
    Console().print(shown)
    if json_file is not None:
        json_file.write_text("".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
