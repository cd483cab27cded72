"""``lamina tune`` beside random search without halving, and beside the recipe itself.

Random search trains as many epochs as the trials of the tuning, so other programs on the machine
change nothing. Both train their best trials again with new seeds; the best mean on val decides.
Verdicts on the test images follow. They are about the runs that val has chosen, so they favor both
searches over the recipe; the study itself tests its winner with fresh seeds.

    python benchmarks/tuning.py --minutes 30 --json tuning.json
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import numpy as np
import tyro

from lamina import Dataset, Recipe, Run, load_data, load_run, train, tune
from lamina.studies.judging import judge_runs
from lamina.studies.search import score_on

OVER = {"lr": "0.01..0.3:log", "momentum": "0.3..0.95", "label_smoothing": "0..0.3"}


def search_randomly(
    dataset: Dataset, base: Recipe, epochs: int, best: int, seeds: range
) -> tuple[int, list[Run]]:
    """The number of trials in ``epochs``, and the runs with new seeds of the best values on val."""
    begin = partial(
        train,
        replace(dataset, test=None),
        net="cnn-s",
        runs_dir=mkdtemp(prefix="tuning-"),
        progress=False,
    )
    generator, tried = np.random.default_rng(0), []
    for _ in range(max(best, round(epochs / base.epochs))):
        lr, momentum, smooth = generator.random(3)
        recipe = replace(
            base,
            seed=0,
            lr=0.01 * 30**lr,
            momentum=0.3 + 0.65 * momentum,
            label_smoothing=0.3 * smooth,
        )
        tried.append((score_on_val(begin(recipe=recipe)), recipe))
    chosen = [recipe for _, recipe in sorted(tried, key=lambda one: -one[0])[:best]]
    finals = [[begin(recipe=replace(one, seed=seed)) for seed in seeds] for one in chosen]
    return len(tried), max(
        finals, key=lambda runs: statistics.fmean(score_on(run, "val") for run in runs)
    )


def main(
    data: str = "cifar10",
    images: int = 10_000,
    minutes: float = 30.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Search with lamina tune and at random, and print values, scores and verdicts.

    Args:
        data: images with a test split.
        images: training images; half as many others are val.
        minutes: time of the tuning with its finals.
        json_file: file to write the rows to, one JSON object per line.
    """
    loaded, folder = load_data(data), Path(mkdtemp(prefix="tuning-"))
    order = np.random.default_rng(0).permutation(len(loaded.train))
    parts = (
        loaded.train.take(order[:images]),
        loaded.train.take(order[images : images + images // 2]),
    )
    dataset = Dataset.from_images(parts[0], val=parts[1], test=loaded.test)
    study = tune(
        "cnn-s:quick",
        dataset,
        over=OVER,
        seconds=60 * minutes,
        runs_dir=folder,
        name="tpe",
    )
    finalists = study.result.finalists
    seeds, found = (
        range(1, 1 + len(finalists[0].scores)),
        next(one for one in finalists if one.values),
    )
    places = found.name.replace(" ", "-"), "cnn-s-quick"
    tuned, base = (
        [load_run(folder / f"tpe/final-{one}-seed{seed}") for seed in seeds] for one in places
    )
    epochs, best = int(study.trials["epoch"].sum()), sum(bool(one.values) for one in finalists)
    number, random = search_randomly(dataset, base[0].record.recipe, epochs, best, seeds)
    rows = []
    for name, trials, runs in (
        ("TPE", study.result.trials, tuned),
        ("random", number, random),
        ("recipe", 0, base),
    ):
        reports, val = (
            [run.evaluate(data=dataset) for run in runs],
            statistics.fmean(score_on(run, "val") for run in runs),
        )
        test, recipe = statistics.fmean(one.score.value for one in reports), runs[0].record.recipe
        rows.append(
            {"search": name, "trials": trials, "val": val, "test": test, "seeds": len(runs)}
        )
        print(rows[-1] | {setting: getattr(recipe, setting) for setting in OVER})
    pairs = {"TPE": tuned, "random": random}
    for one in [*judge_runs(pairs | {"recipe": base}), *judge_runs(pairs)]:
        print(f"{one.a} compared with {one.b} on {one.split}: {one.headline()}")
        rows.append(one.to_json())
    if json_file is not None:
        json_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
