"""How often the verdicts of ``lamina compare`` are right, in studies simulated from many runs.

RUNS are runs of one experiment with different seeds, as ``lamina train NET --seeds 32`` trains
them.

- ``equal``: A and B are different runs, drawn without replacement, so they share none and differ
  only by chance; images are drawn with replacement. The fraction of studies that claim a
  difference, at one look and at any of three.
- ``gain``: the same images are made correct in every seed of A: ``--gain`` of all images on
  average. A pilot study with 8 seeds announces the number of seeds that detects it; a second study
  of that size should detect it in 80 %. Runs are drawn with replacement, because that may be more
  than there are.

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
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    studies: int = 200,
    gain: float = 0.01,
    margin: float = 0.005,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Simulate studies from the stored logits of runs; print how often their verdicts are right.

    Args:
        runs: folders of runs that differ only in their seed, at least 8.
        studies: number of simulated studies.
        gain: injected gain in accuracy.
        margin: margin of the verdicts.
        json_file: file to write the rows to, one JSON object per line.
    """
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
    generator = np.random.default_rng(0)
    found: dict[tuple[str, str], list[bool]] = {}
    known = [seeds for seeds in (2, 4, 8, 16) if 2 * seeds <= len(runs)]
    for seeds in known:
        equal = [draw_equal(table, seeds, generator) for _ in range(studies)]
        found["equal: a difference is claimed", str(seeds)] = [
            claims(one, 0.05, margin) for one in equal
        ]
    looks = [seeds for seeds in LOOKS if seeds in known]
    drawn = [draw_equal(table, max(looks), generator) for _ in range(studies)]
    found["equal: claimed at any look", ", ".join(map(str, looks))] = [
        any(claims(one[:seeds], LOOKS[seeds], margin) for seeds in looks) for one in drawn
    ]
    pilots = [
        draw_gain(table, PILOT_SEEDS, generator, gain).seeds_to_detect(gain) for _ in range(studies)
    ]
    needed = [seeds for seeds in pilots if seeds is not None]
    if needed:
        low, middle, high = np.percentile(needed, (5, 50, 95))
        announced = f"{middle:.0f} (5 to 95 %: {low:.0f} to {high:.0f})"
        found[f"gain of {100 * gain:g} points: detected", announced] = [
            draw_gain(table, seeds, generator, gain).judge(margin) == "better" for seeds in needed
        ]
    found["gain: more than 1,000 seeds", str(PILOT_SEEDS)] = [seeds is None for seeds in pilots]
    shown, rows = Table("question", "seeds", "studies", "fraction", "95 % interval"), []
    for (question, seeds), outcomes in found.items():
        interval, fraction = (
            wilson_interval(sum(outcomes), len(outcomes)),
            sum(outcomes) / len(outcomes),
        )
        ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
        shown.add_row(question, seeds, str(len(outcomes)), f"{100 * fraction:.1f} %", ends)
        row = {"question": question, "seeds": seeds, "studies": len(outcomes), "fraction": fraction}
        rows.append(json.dumps(row | dataclasses.asdict(interval)) + "\n")
    spread = 100 * table.mean(axis=1).std(ddof=1)
    print(
        f"{len(runs)} runs, {table.shape[1]:,} images, accuracy {100 * table.mean():.2f} %, seeds"
        f" ±{spread:.2f}"
    )
    Console().print(shown)
    if json_file is not None:
        json_file.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
