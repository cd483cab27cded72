"""Intervals and comparisons count groups of images, such as those of one patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamina import Images, Recipe
from lamina.data import Dataset
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.intervals import measure_design_effect, number_groups, wilson_interval
from lamina.evaluation.outputs import Outputs, pack_outputs, unpack_outputs
from lamina.evaluation.paired import measure_effect, measure_outputs, seed_deviation
from lamina.insight.confusions import find_confusions
from lamina.runs.start import start_run
from lamina.studies.judging import judge_runs
from lamina.training.task import Binary, MultiLabel, SingleLabel

SIZES = {"50 groups of 40": (50, 40), "200 groups of 10": (200, 10)}
TASK = SingleLabel(("a", "b"), (0.5, 0.5))


def draw_correct(generator: np.random.Generator, groups: int, size: int) -> np.ndarray:
    """Which images two equal nets predict correctly, with 4 seeds: (net, seed, image)."""
    ease = generator.normal(1.5, 1, (groups, 1)) + generator.normal(0, 1, (groups, size))
    of_group = generator.normal(0, 1, (2, 1, groups, 1))
    rest = generator.normal(0, 1, (2, 4, groups, size))
    return (ease + of_group + rest > 0).reshape(2, 4, -1)


@pytest.mark.parametrize(("groups", "size"), SIZES.values(), ids=SIZES)
def test_equal_nets_seldom_differ_on_grouped_images(groups, size):
    """Counting images, 25 to 55 % of these studies claimed a difference."""
    generator = np.random.default_rng(0)
    numbers = torch.arange(groups).repeat_interleave(size)
    claims = {"seeds": 0, "one pair": 0, "as images": 0}
    for _ in range(200):
        first, second = draw_correct(generator, groups, size).astype(float)
        table = first - second
        effects = {
            "seeds": measure_effect(table, "accuracy", numbers),
            "one pair": measure_effect(table[:1], "accuracy", numbers),
            "as images": measure_effect(table),
        }
        for name, effect in effects.items():
            claims[name] += effect.judge(0.005) != "undecided"
    assert claims["seeds"] <= 16  # 10 allowed; the 97.5 % quantile of a binomial distribution
    assert claims["one pair"] <= 16
    assert claims["as images"] > 40


@pytest.mark.parametrize(("groups", "size"), SIZES.values(), ids=SIZES)
def test_the_interval_of_an_accuracy_covers_that_of_new_groups(groups, size):
    """Wilson's interval for the number of images covers it in 45 to 65 %."""
    generator = np.random.default_rng(1)
    numbers = torch.arange(groups).repeat_interleave(size)
    expected = np.mean([draw_correct(generator, 2000, 4)[0, 0].mean() for _ in range(40)])
    covered = 0
    for _ in range(300):
        hits = draw_correct(generator, groups, size)[0, 0]
        effect = measure_design_effect(hits, numbers)
        interval = wilson_interval(int(hits.sum()), len(hits), effect)
        covered += interval.low <= expected <= interval.high
    assert covered >= 276  # 285 expected; the 2 % quantile of a binomial distribution


def test_the_variance_of_a_difference_matches_resampled_groups():
    generator = np.random.default_rng(2)
    sizes = generator.integers(1, 30, 80)
    numbers = np.repeat(np.arange(80), sizes)
    by_group = generator.normal(0, 1, 80)[numbers]
    table = (by_group + generator.normal(0, 1, len(numbers)))[None]
    effect = measure_effect(table, "r2", torch.from_numpy(numbers))
    assert effect.difference == pytest.approx(table.mean())
    assert effect.images == 80
    sums = np.bincount(numbers, table[0])
    drawn = [generator.integers(0, 80, 80) for _ in range(4000)]
    resampled = [sums[rows].sum() / sizes[rows].sum() for rows in drawn]
    assert effect.image_variance / 80 == pytest.approx(np.var(resampled), rel=0.1)


def test_groups_of_one_image_change_nothing():
    hits = np.array([True, False, True, True])
    assert number_groups(("a", "b", "c", "d")) is None
    assert number_groups(()) is None
    assert measure_design_effect(hits, torch.arange(4)) == 1
    assert measure_design_effect(hits, None) == 1
    assert number_groups(("b", "a", "b")).tolist() == [1, 0, 1]
    table = np.random.default_rng(3).normal(size=(3, 6))
    alone = measure_effect(table, "r2", torch.arange(6))
    assert vars(alone) == pytest.approx(vars(measure_effect(table, "r2")))
    pooled = seed_deviation(table, torch.arange(6))
    assert pooled == pytest.approx(seed_deviation(table))


def test_images_of_a_group_that_are_all_alike_count_as_one():
    numbers = torch.arange(20).repeat_interleave(5)
    alike = numbers.numpy() < 12
    assert measure_design_effect(alike, numbers) == pytest.approx(5)
    assert measure_design_effect(np.ones(100, bool), numbers) == 5  # not 1
    assert measure_design_effect(alike, numbers, alike) == 5
    assert measure_design_effect(alike, numbers, numbers.numpy() > 99) == 1


def make_outputs(groups: tuple[str, ...]) -> Outputs:
    generator = np.random.default_rng(4)
    logits = generator.normal(size=(len(groups), 2)).astype(np.float32)
    targets = generator.integers(0, 2, len(groups))
    names = tuple(map(str, range(len(groups))))
    return Outputs("test", logits, targets, names, groups=groups)


def test_groups_are_stored_with_the_outputs():
    outputs = make_outputs(("p1", "p1", "p2", "p3"))
    read = unpack_outputs(pack_outputs([outputs]), "logits.npz")["test"]
    assert read.groups == outputs.groups
    assert read.group_numbers.tolist() == [0, 0, 1, 2]


def test_a_report_names_its_groups_and_its_intervals_are_wider():
    groups = tuple(f"patient {place // 10}" for place in range(60))
    outputs = make_outputs(groups)
    pixels = np.zeros((60, 2, 2, 1), np.uint8)
    logits = np.repeat(outputs.logits[::10], 10, axis=0)  # all images of a patient look alike
    targets = np.repeat(outputs.targets[::10], 10)
    for known in (groups, ()):
        images = Images(pixels, targets, ("a", "b"), outputs.names, "test", groups=known)
        report = score_logits(TASK, logits, images, 0.0)
        width = report.score_interval.high - report.score_interval.low
        gain = report.baseline.gain_interval
        if known:
            grouped = (width, gain.high - gain.low)
            assert report.groups == 6
            assert "60 images in 6 groups)" in str(report)
        else:
            assert grouped[0] > 1.5 * width
            assert grouped[1] > 1.5 * (gain.high - gain.low)
            assert report.groups is None


def test_a_class_counts_the_groups_that_have_it():
    """A class of 40 images of two patients is a class of two."""
    truth = np.zeros(400, bool)
    truth[:40] = True
    groups = tuple(f"p{place // 20}" for place in range(400))
    logits = np.where(truth, 1, -1).astype(np.float32)[:, None]
    task = Binary(("sick?",), (0.1,), metric="balanced_accuracy")
    outputs = Outputs("test", logits, truth, groups, groups=groups)
    assert measure_outputs(task, outputs).step == pytest.approx(1 / 2 / 2)
    plain = Outputs("test", logits, truth, groups)
    assert measure_outputs(task, plain).step == pytest.approx(1 / 40 / 2)
    area = Binary(("sick?",), (0.1,), metric="auc")
    turned = Outputs("test", -logits, ~truth, groups, groups=groups)
    assert measure_outputs(area, turned).step == pytest.approx(1 / 2 / 2)
    labels = MultiLabel(("x", "y"), (0.1, 0.1), metric="micro_f1")
    both = Outputs("test", np.hstack([logits, logits]), np.stack([truth] * 2, axis=1), groups)
    assert measure_outputs(labels, both).step == pytest.approx(1 / 80)


def test_confusions_count_groups():
    truth = np.arange(200) // 10 % 2 == 0
    groups = tuple(f"p{place // 10}" for place in range(200))
    logits = np.where(np.arange(200) // 10 < 5, -1, 1).astype(np.float32)[:, None]
    logits[truth[:, None]] += np.float32(0.01)
    task = Binary(("sick?",), (0.5,))
    widths = []
    for known in (groups, ()):
        outputs = Outputs("test", logits, truth, groups, groups=known)
        confusion = find_confusions(task, [outputs]).pairs[0]
        widths.append(confusion.interval.high - confusion.interval.low)
    assert widths[0] > 2 * widths[1]


def test_runs_on_grouped_images_are_compared_by_their_groups(tmp_path):
    generator = np.random.default_rng(5)
    splits = {}
    for split in ("train", "test"):
        targets = np.arange(40) % 2
        pixels = generator.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        names = tuple(f"{split}/{place}" for place in range(40))
        groups = tuple(f"{split} {place // 4}" for place in range(40))
        splits[split] = Images(pixels, targets, ("a", "b"), names, split, groups=groups)
    data = Dataset(name="scans", fingerprint="s", size_px=4, **splits)
    runs = {}
    for net in ("Flatten(), Output()", "Flatten(), Linear(3), Output()"):
        runs[net] = [start_run(data, net, Recipe(epochs=1), runs_dir=tmp_path)]
        runs[net][0].train(data=data, progress=False)
    (comparison,) = judge_runs(runs)
    assert (comparison.images, comparison.groups) == (40, 10)
    assert "40 images in 10 groups" in comparison.headline()
    assert comparison.to_json()["groups"] == 10
