"""How often verdicts about two nets, and intervals of scores, are right.

``results/verdict-scores`` has 60 runs of each of two nets on three sets of test images
(verdict_runs.py). A study draws runs of A and B, and images, or groups of images, with replacement.
Its truth is known, because the stored runs and images are all that there are. To try another
procedure, add it to ``PROCEDURES``. With ``--drawn``, the predictions of two equally good nets are
drawn from a model, for several metrics.

    python benchmarks/verdicts.py --json verdicts.json
    python benchmarks/verdicts.py --drawn --studies 1000
    python benchmarks/verdicts.py better.npz worse.npz --images 100
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import torch
import tyro

from lamina.data import Images
from lamina.errors import plural
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.intervals import (
    ALPHA,
    Groups,
    mean_interval,
    sum_by_group,
    wilson_interval,
)
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import (
    LOOKS,
    Verdict,
    measure_effect,
    measure_outputs,
    score_images,
    seed_deviation,
)
from lamina.evaluation.report import Report
from lamina.training.task import Binary, Regression, Task

FOLDER = Path(__file__).parent / "results" / "verdict-scores"
MARGIN = 0.005
SEEDS = max(LOOKS)
UNTIL_DECIDED = "until decided"
RESAMPLES = 300
COLLAPSES = 0.1  # fraction of seeds
COLLAPSE = 0.1  # loss of accuracy


@dataclass(frozen=True)
class Plan:
    """The files of two nets, the better one first, and the number of images in a study."""

    better: Path
    worse: Path
    images: int


PLANS = (
    Plan(FOLDER / "cifar10-cnn-s.npz", FOLDER / "cifar10-mlp.npz", 2000),
    Plan(FOLDER / "digits-mlp.npz", FOLDER / "digits-linear.npz", 500),
    Plan(FOLDER / "digits-mlp.npz", FOLDER / "digits-linear.npz", 100),
    Plan(FOLDER / "cifar10-cnn-s-shifts.npz", FOLDER / "cifar10-mlp-shifts.npz", 2000),
    Plan(FOLDER / "cifar10-cnn-s-shifts.npz", FOLDER / "cifar10-mlp-shifts.npz", 100),
)

Procedure: TypeAlias = Callable[[np.ndarray, Groups, float], Verdict]
"""The verdict on differences (seeds, images), with groups (images) and the significance level."""


def judge_as_lamina(differences: np.ndarray, groups: Groups, alpha: float) -> Verdict:
    is_grouped = int(groups.max()) + 1 < len(groups)
    counted = groups if is_grouped else None
    return measure_effect(differences, "accuracy", counted).judge(MARGIN, 1 - alpha)


def judge_images(differences: np.ndarray, _: Groups, alpha: float) -> Verdict:
    """As lamina, but images of a group are counted as independent."""
    return measure_effect(differences).judge(MARGIN, 1 - alpha)


def judge_seeds(differences: np.ndarray, _: Groups, alpha: float) -> Verdict:
    """The paired t test of the seeds' mean differences."""
    interval = mean_interval(differences.mean(axis=1).tolist(), 1 - alpha)
    assert interval.low is not None
    assert interval.high is not None
    return judge(interval.low, interval.high)


def judge_resamples(differences: np.ndarray, groups: Groups, alpha: float) -> Verdict:
    """Percentiles of the means of resampled seeds and groups (pigeonhole bootstrap; Owen, 2007)."""
    sums = sum_by_group(torch.from_numpy(differences), groups).float().numpy()
    by_seed = draw_weights(sums.shape[1]) @ sums.T / differences.shape[1]
    means = (by_seed * draw_weights(len(sums))).mean(axis=1)
    low, high = np.quantile(means, (alpha / 2, 1 - alpha / 2))
    return judge(float(low), float(high))


@functools.cache
def draw_weights(units: int) -> np.ndarray:
    """How often each resample has each unit."""
    weights = np.random.default_rng(units).multinomial(units, [1 / units] * units, RESAMPLES)
    return weights.astype(np.float32)


def judge_one_pair(differences: np.ndarray, _: Groups, alpha: float) -> Verdict:
    """As lamina, for the first pair of runs alone."""
    return measure_effect(differences[:1]).judge(MARGIN, 1 - alpha)


def judge(low: float, high: float) -> Verdict:
    """The verdict that follows from an interval."""
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "equal" if max(-low, high) < MARGIN else "undecided"


LAMINA = "lamina"
WITHOUT_GROUPS = "lamina, groups ignored"
PROCEDURES: dict[str, Procedure] = {
    LAMINA: judge_as_lamina,
    WITHOUT_GROUPS: judge_images,
    "t test over seeds": judge_seeds,
    "bootstrap over seeds and images": judge_resamples,
    "one pair": judge_one_pair,
}


Members: TypeAlias = list[np.ndarray]
"""The places of the images in each group."""


@dataclass(frozen=True)
class Net:
    """All runs of a net, of which a study draws some."""

    name: str
    scores: np.ndarray  # (runs, images): 1 for a correct prediction, otherwise 0

    def draw(self, places: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The scores of independent runs on the images."""
        runs = generator.integers(0, len(self.scores), (SEEDS, 1))
        return self.scores[runs, places]

    def draw_twice(
        self, places: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scores of A and B, which share no run."""
        runs = generator.permutation(len(self.scores))[: 2 * SEEDS, None]
        return self.scores[runs[:SEEDS], places], self.scores[runs[SEEDS:], places]

    def improve(
        self, hits: np.ndarray, gain: float, groups: Groups, generator: np.random.Generator
    ) -> np.ndarray:
        """Correct some groups in all seeds, so that the expected accuracy grows by the gain."""
        is_corrected = generator.random(int(groups.max()) + 1) < gain / (1 - self.scores.mean())
        return np.where(is_corrected[groups.numpy()], 1.0, hits)


Draw: TypeAlias = Callable[[np.ndarray, Groups, np.random.Generator], np.ndarray]
"""The differences of A and B (seeds, images) on the images at some places, with their groups."""


def draw_one_net(net: Net, gain: float = 0.0) -> Draw:
    """A and B are one net; A is better by the gain."""

    def draw(places: np.ndarray, groups: Groups, generator: np.random.Generator) -> np.ndarray:
        first, second = net.draw_twice(places, generator)
        return net.improve(first, gain, groups, generator) - second

    return draw


def draw_both_nets(better: Net, worse: Net, gain: float = 0.0) -> Draw:
    """A is the better net; B is improved by the gain."""

    def draw(places: np.ndarray, groups: Groups, generator: np.random.Generator) -> np.ndarray:
        second = worse.improve(worse.draw(places, generator), gain, groups, generator)
        return better.draw(places, generator) - second

    return draw


def draw_collapses(net: Net) -> Draw:
    """A and B are one net, but A loses much in some seeds, and gains as much on average."""
    gain = COLLAPSES * COLLAPSE
    lost = COLLAPSE / (net.scores.mean() + gain)

    def draw(places: np.ndarray, groups: Groups, generator: np.random.Generator) -> np.ndarray:
        first, second = net.draw_twice(places, generator)
        collapses = generator.random((SEEDS, 1)) < COLLAPSES
        is_lost = collapses & (generator.random(first.shape) < lost)
        return np.where(is_lost, 0.0, net.improve(first, gain, groups, generator)) - second

    return draw


@dataclass(frozen=True)
class Case:
    """Studies with a known truth, and the verdicts that are counted."""

    name: str
    draw: Draw
    counted: tuple[Verdict, ...]
    most: float | None = None  # fraction of studies that may have these verdicts


def list_cases(better: Net, worse: Net) -> list[Case]:
    gap = better.scores.mean() - worse.scores.mean()
    differ: tuple[Verdict, ...] = ("better", "worse")
    point = draw_one_net(better, 0.01)
    points = draw_one_net(better, 0.02)
    return [
        Case(f"{better.name} and itself", draw_one_net(better), differ, ALPHA),
        Case(f"{worse.name} and itself", draw_one_net(worse), differ, ALPHA),
        Case("both nets, made equal", draw_both_nets(better, worse, gap), differ, ALPHA),
        Case("equal means, A collapses", draw_collapses(better), differ, ALPHA),
        Case("A is better by 1 point: called equal", point, ("equal",), ALPHA / 2),
        Case("A is better by 1 point: found", point, ("better",)),
        Case("A is better by 2 points: found", points, ("better",)),
        Case(
            f"both nets ({100 * gap:.1f} points): found", draw_both_nets(better, worse), differ[:1]
        ),
    ]


@dataclass(frozen=True)
class Fraction:
    """The fraction of studies in which a procedure has the counted verdicts."""

    case: str
    procedure: str
    seeds: str
    studies: int
    fraction: float
    low: float  # 95 % interval
    high: float
    most: float | None

    def __str__(self) -> str:
        text = f"{100 * self.fraction:.1f} ({100 * self.low:.1f}–{100 * self.high:.1f})"
        fails = self.most is not None and self.low > self.most
        return f"**{text}**" if fails else text


def simulate(
    case: Case, procedures: dict[str, Procedure], members: Members, images: int, studies: int
) -> Iterator[Fraction]:
    """Draw studies of about so many images, in groups with these members."""
    generator = np.random.default_rng(zlib.crc32(case.name.encode()))
    size = np.mean([len(group) for group in members])
    count = max(2, min(len(members), round(images / size)))
    verdicts: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for _ in range(studies):
        drawn = [members[number] for number in generator.integers(0, len(members), count)]
        sizes = torch.tensor([len(group) for group in drawn])
        groups = torch.arange(count).repeat_interleave(sizes)
        differences = case.draw(np.concatenate(drawn), groups, generator)
        for name, procedure in procedures.items():
            decided: Verdict = "undecided"
            for seeds, alpha in LOOKS.items():
                few = differences[:seeds]
                verdicts[name, f"{seeds} seeds"].append(procedure(few, groups, ALPHA))
                if decided == "undecided":
                    decided = procedure(few, groups, alpha)
            verdicts[name, UNTIL_DECIDED].append(decided)
    for (name, column), outcomes in verdicts.items():
        claims = sum(verdict in case.counted for verdict in outcomes)
        ends = wilson_interval(claims, studies)
        fraction = claims / studies
        yield Fraction(case.name, name, column, studies, fraction, ends.low, ends.high, case.most)


DRAWN_METRICS = ("accuracy", "balanced_accuracy", "f1", "mean_absolute_error")
POSITIVE = 0.2  # fraction of the images
GROUP_SIZE = 5
MANY_IMAGES = 400_000


def make_task(metric: str) -> Task:
    if metric == "mean_absolute_error":
        return Regression(("size",), (0.0,), (0.0,), (1.0,))
    return Binary(("is it ill?",), (POSITIVE,), metric=metric)


def draw_targets(metric: str, images: int, generator: np.random.Generator) -> np.ndarray:
    if metric == "mean_absolute_error":
        return generator.normal(size=(images, 1)).astype(np.float32)
    return generator.random(images) < POSITIVE


def draw_effects(
    spread: float, images: int, group_size: int, generator: np.random.Generator
) -> np.ndarray:
    """An effect of each image, the same for all images of a group."""
    groups = -(-images // group_size)
    return generator.normal(0, spread, groups).repeat(group_size)[:images]


def draw_logits(
    targets: np.ndarray, effects: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Logits of yes-or-no targets, or predicted numbers, from an effect of each image."""
    noise = effects + generator.normal(size=len(targets))
    if targets.dtype == bool:
        logits = np.where(targets, 1.0, -1.0) * (1.5 + noise)
        return logits[:, None].astype(np.float32)
    return targets + 0.3 * noise[:, None].astype(np.float32)


def claim_difference(
    metric: str, seeds: int, images: int, group_size: int, generator: np.random.Generator
) -> bool:
    """Whether one study claims that two equally good nets differ."""
    task = make_task(metric)
    names = tuple(map(str, range(images)))
    targets = draw_targets(metric, images, generator)
    ease = draw_effects(1.5, images, group_size, generator)
    seed_spread = 0.1 if seeds > 1 else 0.0  # a verdict on one pair is about these two models
    scores = []
    for _ in range(2):
        effects = ease + draw_effects(0.7, images, group_size, generator)
        outputs = []
        for shift in generator.normal(0, seed_spread, seeds):
            logits = draw_logits(targets, effects + shift, generator)
            outputs.append(Outputs("test", logits, targets, names))
        scores.append(np.stack([score_images(task, seed) for seed in outputs]))
    groups = None
    if group_size > 1:
        groups = torch.arange(images) // group_size
    step = measure_outputs(task, outputs[0]).step
    effect = measure_effect(scores[0] - scores[1], metric, groups, step)
    return effect.judge(MARGIN) in ("better", "worse")


def draw_report(
    metric: str, images: int, group_size: int, generator: np.random.Generator
) -> Report:
    """The report on one net."""
    task = make_task(metric)
    targets = draw_targets(metric, images, generator)
    ease = draw_effects(1.5, images, group_size, generator)
    logits = draw_logits(targets, ease, generator)
    names = tuple(map(str, range(images)))
    groups = tuple(str(place // group_size) for place in range(images))
    pixels = np.zeros((images, 1, 1, 1), np.uint8)
    drawn = Images(pixels, targets, task.target_names, names, "test", groups=groups)
    return score_logits(task, logits, drawn, seconds=0.0)


def count_fraction(
    case: str, what: str, column: str, hits: list[bool], most: float | None
) -> Fraction:
    ends = wilson_interval(sum(hits), len(hits))
    return Fraction(case, what, column, len(hits), sum(hits) / len(hits), ends.low, ends.high, most)


def list_drawn_cases() -> list[tuple[str, str, int]]:
    """The name, the metric and the size of the groups of each case."""
    cases = []
    for metric in DRAWN_METRICS:
        cases.append((metric.replace("_", " "), metric, 1))
        cases.append((f"{metric.replace('_', ' ')}, groups of {GROUP_SIZE}", metric, GROUP_SIZE))
    return cases


def run_drawn(studies: int) -> None:
    """Print how often equal nets are claimed to differ, and how often intervals hold the truth."""
    rows = []
    for case, metric, group_size in list_drawn_cases():
        row = []
        for images, seeds in itertools.product((100, 10_000), (1, 4, 16)):
            generator = np.random.default_rng(zlib.crc32(f"{case} {images} {seeds}".encode()))
            count = studies if images == 100 else max(100, studies // 4)
            claims = [
                claim_difference(metric, seeds, images, group_size, generator) for _ in range(count)
            ]
            column = f"{images:,} images, {plural(seeds, 'seed', 'seeds')}"
            row.append(count_fraction(case, "equal nets differ", column, claims, 0.055))
        rows.append(row)
    print("\n### Equal nets: a difference is claimed\n")
    print_table([row.seeds for row in rows[0]], rows)
    rows = []
    for case, metric, group_size in list_drawn_cases():
        row = []
        generator = np.random.default_rng(zlib.crc32(case.encode()))
        truth = draw_report(metric, MANY_IMAGES, 1, generator)
        for images in (100, 1000):
            reports = [draw_report(metric, images, group_size, generator) for _ in range(studies)]
            scores = [
                report.score_interval.low <= truth.score.value <= report.score_interval.high
                for report in reports
            ]
            gains = [
                report.baseline.gain_interval.low
                <= truth.baseline.gain
                <= report.baseline.gain_interval.high
                for report in reports
            ]
            row.append(count_fraction(case, "score", f"score, {images:,} images", scores, None))
            row.append(count_fraction(case, "gain", f"gain, {images:,} images", gains, None))
        rows.append(row)
    print("\n### The 95 % interval contains the true value\n")
    print_table([row.seeds for row in rows[0]], rows)


def print_table(heads: list[str], rows: list[list[Fraction]]) -> None:
    """A line for each case, with its fractions in percent."""
    print(f"\n| % of studies | wanted | {' | '.join(heads)} |")
    print("|---" * (2 + len(heads)) + "|")
    for fractions in rows:
        most = fractions[0].most
        wanted = "" if most is None else f"≤ {100 * most:g}"
        print("|", " | ".join([fractions[0].case, wanted, *map(str, fractions)]), "|")


def load(path: Path) -> tuple[Net, Members]:
    """A net, and the images of each group."""
    with np.load(path) as arrays:
        scores = arrays["scores"].astype(float)
        names = arrays.get("groups", np.arange(scores.shape[1]))
    if len(scores) < 2 * SEEDS:
        sys.exit(f"{path} has {len(scores)} runs, but studies draw {2 * SEEDS}. Add runs.")
    groups = np.unique(names, return_inverse=True)[1]
    deviation = 100 * (seed_deviation(scores, torch.from_numpy(groups)) or 0.0)
    print(f"- {path.stem}: {len(scores)} runs, {100 * scores.mean():.2f} ± {deviation:.2f} %")
    return Net(path.stem, scores), [
        np.flatnonzero(groups == group) for group in range(groups.max() + 1)
    ]


def run(plan: Plan, studies: int) -> list[list[Fraction]]:
    """The fractions of each case; prints them."""
    print(f"\n### Studies of {plan.images:,} images\n")
    better, members = load(plan.better)
    worse, _ = load(plan.worse)
    if better.scores.shape[1] != worse.scores.shape[1]:
        sys.exit("The files have different numbers of images. Store the same images.")
    procedures = dict(PROCEDURES)
    if len(members) == better.scores.shape[1]:
        del procedures[WITHOUT_GROUPS]
    cases = list_cases(better, worse)
    rows = [list(simulate(case, procedures, members, plan.images, studies)) for case in cases]
    of_lamina = [[row for row in fractions if row.procedure == LAMINA] for fractions in rows]
    print_table([row.seeds for row in of_lamina[0]], of_lamina)
    with_8_seeds = [[row for row in fractions if row.seeds == "8 seeds"] for fractions in rows]
    print("\nWith 8 seeds, beside other procedures:")
    print_table(list(procedures), with_8_seeds)
    return rows


def main(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    images: int = 2000,
    studies: int = 200,
    drawn: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Print how often procedures reach a verdict, in percent of studies with 95 % intervals.

    Bold: more often than wanted, by the whole interval.

    Args:
        files: scores of two nets on the same images, the better net first; by default, the stored
            ones. An .npz file has the array scores (runs, images) of 1 for correct predictions and
            0 for others, and may have groups (images).
        images: images of a study of the files.
        studies: studies of each case.
        drawn: draw the predictions of two equally good nets from a model.
        json_file: file to write the rows to, one JSON object per line.
    """
    if drawn:
        run_drawn(studies)
        return
    plans: tuple[Plan, ...] = PLANS
    if files:
        if len(files) != 2:
            sys.exit(f"There are {len(files)} files. Name two, or none for the stored scores.")
        plans = (Plan(*files, images),)
    lines = []
    for plan in plans:
        nets = {"better": plan.better.stem, "worse": plan.worse.stem, "images": plan.images}
        for fractions in run(plan, studies):
            lines += [json.dumps(nets | dataclasses.asdict(row)) + "\n" for row in fractions]
    if json_file is not None:
        json_file.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
