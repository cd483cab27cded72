"""Each fault that is put into a clean data set is found, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamina.data import Dataset, Images, Problem
from lamina.data.findings import Finding, Sighting, imbalance
from lamina.data.images import REPEATED
from lamina.data.inspection import Inspection, SizeSummary, inspect, measure_spread
from support.inspected import CLEAN, make_dataset, make_split, only_finding


def copy_pixels(images: Images, place: int, pixels: np.ndarray) -> Images:
    changed = images.pixels.copy()
    changed[place] = pixels
    return replace(images, pixels=changed)


@pytest.mark.parametrize("dataset", CLEAN.values(), ids=CLEAN)
def test_a_clean_set_has_no_findings(dataset: Dataset) -> None:
    inspection = inspect(dataset)
    assert inspection.findings == ()
    assert inspection.duplicates == ()


def test_sets_without_held_out_or_of_gray_images_are_clean() -> None:
    train = make_split("train")
    assert inspect(Dataset("set", "0", train)).findings == ()
    grey = replace(train, pixels=np.repeat(train.pixels[..., :1], 3, axis=3))
    assert inspect(Dataset("set", "0", grey)).findings == ()


def test_an_image_of_train_in_test_is_an_error() -> None:
    train, test = make_split("train"), make_split("test")
    leaked = copy_pixels(copy_pixels(test, 3, train.pixels[5]), 30, train.pixels[20])
    inspection = inspect(make_dataset(test=leaked))
    assert inspection.findings == (
        Finding(
            "leak",
            "error",
            "2 images are in both test and train (identical pixels), which inflates the score on"
            " test. Keep each image in one split only.",
            2,
            (Sighting("test", "test/003.png", "cat"), Sighting("test", "test/030.png", "dog")),
            (Sighting("train", "train/005.png", "cat"), Sighting("train", "train/020.png", "dog")),
        ),
    )
    assert inspection.duplicates == (
        (Sighting("train", "train/005.png", "cat"), Sighting("test", "test/003.png", "cat")),
        (Sighting("train", "train/020.png", "dog"), Sighting("test", "test/030.png", "dog")),
    )


def test_an_image_of_all_three_splits_leaks_three_times() -> None:
    train = make_split("train")
    val, test = (copy_pixels(make_split(split), 0, train.pixels[0]) for split in ("val", "test"))
    findings = inspect(make_dataset(val=val, test=test)).findings
    assert [finding.message.partition(" (")[0] for finding in findings] == [
        "1 image is in both test and train",
        "1 image is in both val and train",
        "1 image is in both test and val",
    ]
    assert {finding.severity for finding in findings} == {"error"}


CONFLICT = (
    "1 image is pixel-identical to an image with a different target, so no net can learn both. Keep"
    " the one with the correct target."
)


@pytest.mark.parametrize(
    ("kind", "place", "targets"),
    [
        ("classes", 39, ("dog", "cat")),
        ("labels", 3, ("warm, wild", "wet, warm")),
        ("binary", 7, ("no", "yes")),
        ("numbers", 2, ("2, -0.5", "0, 0")),
    ],
)
def test_the_same_image_with_two_targets_is_an_error(
    kind: str, place: int, targets: tuple[str, str]
) -> None:
    dataset = CLEAN[kind]
    # The pixels of the first image; and a copy of another with the same target, which is no
    # conflict.
    train = copy_pixels(dataset.train, place, dataset.train.pixels[0])
    assert only_finding(replace(dataset, train=train)) == Finding(
        "conflict",
        "error",
        CONFLICT,
        1,
        (Sighting("train", f"train/{place:03d}.png", targets[0]),),
        (Sighting("train", "train/000.png", targets[1]),),
    )


def test_a_conflict_across_splits_is_a_leak_too() -> None:
    train = make_split("train")
    findings = inspect(
        make_dataset(test=copy_pixels(make_split("test"), 39, train.pixels[0]))
    ).findings
    assert [(finding.kind, finding.count) for finding in findings] == [("leak", 1), ("conflict", 1)]


@pytest.mark.parametrize("kind", ["classes", "labels", "binary"])
def test_copies_inside_a_split_with_the_same_target_are_a_warning(kind: str) -> None:
    dataset = CLEAN[kind]
    train = dataset.train
    for place in (6, 12):
        train = copy_pixels(train, place, train.pixels[0])
    assert only_finding(replace(dataset, train=train)) == Finding(
        "duplicate",
        "warning",
        "2 images are pixel-identical to another image in train, which then counts more than once."
        " Keep one of each.",
        2,
        tuple(inspect_sight(train, place) for place in (6, 12)),
        (inspect_sight(train, 0),) * 2,
    )


def inspect_sight(images: Images, place: int) -> Sighting:
    target = {"int64": "cat", "bool": "yes" if images.targets.ndim == 1 else "wet, warm"}[
        str(images.targets.dtype)
    ]
    return Sighting(images.split, images.names[place], target)


def test_unreadable_files_are_grouped_by_their_reasons() -> None:
    problems = (
        Problem("cat/1.jpg", "damaged: broken data stream"),
        Problem("cat/2.jpg", "empty"),
        Problem("dog/3.jpg", "damaged: bad Huffman code"),
    )
    assert inspect(make_dataset(problems=problems)).findings == (
        Finding(
            "unreadable",
            "warning",
            "2 files were left out: damaged. Repair, replace or remove them.",
            2,
            (Sighting(None, "cat/1.jpg", None), Sighting(None, "dog/3.jpg", None)),
        ),
        Finding(
            "unreadable",
            "warning",
            "1 file was left out: empty. Repair, replace or remove it.",
            1,
            (Sighting(None, "cat/2.jpg", None),),
        ),
    )


def test_repeated_rows_are_one_note() -> None:
    problems = tuple(Problem(f"{place}.png", REPEATED) for place in range(1000))
    (finding,) = inspect(make_dataset(problems=problems)).findings
    assert (finding.kind, finding.severity, finding.count) == ("repeated-row", "note", 1000)
    assert finding.message == "1,000 rows were left out: named in an earlier row."


def test_images_of_nearly_one_color_are_blank_no_duplicates() -> None:
    train = make_split("train", side_px=16)
    for place in (1, 2):
        train = copy_pixels(train, place, np.array([200, 10, 10]))
    # One gray level up or down is what a JPEG makes of one color; four are something to see, as a
    # dark night is.
    noise = np.random.default_rng(0).choice([-1, 1], (16, 16, 3))
    train = copy_pixels(copy_pixels(train, 3, 100 + noise), 4, 100 + 4 * noise)
    parts = {"val": make_split("val", side_px=16), "test": make_split("test", side_px=16)}
    assert only_finding(make_dataset(train=train, **parts)) == Finding(
        "blank",
        "warning",
        "3 images are blank (nearly uniform color). Check or remove blank images.",
        3,
        tuple(Sighting("train", f"train/{place:03d}.png", "cat") for place in (1, 2, 3)),
    )


SIZES = [(6, 6)] * 20 + [(12, 24)] * 10 + [(4, 6), (5, 5), (6, 13), (30, 14)] + [(24, 12)] * 6


def test_original_sizes_are_summarized() -> None:
    train = replace(make_split("train"), original_sizes_px=np.array(SIZES, np.int32))
    inspection = inspect(Dataset("set", "0", train, size_px=6))
    assert inspection.findings == ()
    assert inspection.sizes == SizeSummary(
        smallest_px=(4, 5),
        median_px=(6.0, 6.0),
        largest_px=(30, 24),
        common=((6, 6, 20), (12, 24, 10), (24, 12, 6), (4, 6, 1), (5, 5, 1)),
        sizes=7,
    )


def test_the_most_important_finding_comes_first() -> None:
    train = make_split("train", (100, 8))
    train = copy_pixels(train, 4, np.zeros(3))
    train = copy_pixels(train, 5, np.repeat(train.pixels[5, ..., :1], 3, axis=2))
    train = copy_pixels(train, 6, train.pixels[9])
    train = copy_pixels(train, 102, train.pixels[10])
    test = copy_pixels(make_split("test", (10, 0)), 0, train.pixels[0])
    problems = (Problem("a.jpg", "empty"),)
    findings = inspect(Dataset("set", "0", train, test=test, problems=problems)).findings
    assert [(finding.severity, finding.kind) for finding in findings] == [
        ("error", "leak"),
        ("error", "conflict"),
        ("warning", "class-missing"),
        ("warning", "unreadable"),
        ("warning", "duplicate"),
        ("warning", "class-tiny"),
        ("warning", "blank"),
        ("note", "imbalance"),
    ]


def test_targets_are_counted_and_numbers_described_split_by_split() -> None:
    assert [
        (split, len(images), images.target_counts())
        for split, images in CLEAN["labels"].splits.items()
    ] == [
        ("train", 40, {"wet": 20, "warm": 14, "wild": 20}),
        ("val", 20, {"wet": 10, "warm": 7, "wild": 10}),
        ("test", 24, {"wet": 12, "warm": 8, "wild": 12}),
    ]
    assert measure_spread(CLEAN["labels"].train) == ()
    val = CLEAN["numbers"].val
    numbers = measure_spread(val)
    assert [(spread.name, spread.minimum, spread.mean, spread.maximum) for spread in numbers] == [
        ("x", 0.0, 9.5, 19.0),
        ("y", -4.75, -2.375, 0.0),
    ]
    # Of 0, 1, …, n - 1.
    deviation = np.sqrt((20**2 - 1) / 12)
    assert [spread.standard_deviation for spread in numbers] == pytest.approx(
        [deviation, deviation / 4]
    )
    assert (val.target_counts(), imbalance(CLEAN["numbers"].train)) == ({}, None)


def test_progress_is_complete_and_small_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look() -> tuple[Inspection, list[tuple[int, int]]]:
        calls: list[tuple[int, int]] = []
        return inspect(CLEAN["classes"], lambda done, total: calls.append((done, total))), calls

    whole, calls = look()
    assert calls == [(40, 84), (60, 84), (84, 84)]
    monkeypatch.setattr("lamina.data.inspection.CHUNK_VALUES", 6 * 6 * 3 * 7)
    parts, calls = look()
    assert [done for done, _ in calls] == [7, 14, 21, 28, 35, 40, 47, 54, 60, 67, 74, 81, 84]
    assert parts == whole


def test_cifar10_has_no_duplicates(cifar10: Dataset) -> None:
    inspection = inspect(cifar10)
    assert inspection.duplicates == ()
    assert inspection.findings == ()
