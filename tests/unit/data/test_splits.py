"""Which images are held out."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Preparation
from lamina.data.splits import Split, draw_splits
from lamina.errors import DataError
from lamina.targets import REGRESSION

NAMES = [f"{name}/{number}.png" for name in "abc" for number in range(50)]


class Draw(NamedTuple):
    splits: list[Split]
    rule: str


def draw(*given) -> Draw:
    return Draw(*draw_splits(*given))


CLASSES = [name[0] for name in NAMES]


def test_each_class_gives_its_share() -> None:
    drawn = draw(NAMES, CLASSES, [None] * 150, Preparation(val_fraction=0.1, test_fraction=0.2))
    counts = Counter(zip(CLASSES, drawn.splits, strict=True))
    assert counts == {
        (name, split): n for name in "abc" for split, n in (("train", 35), ("val", 5), ("test", 10))
    }
    assert drawn.rule == "20 % drawn as test and 10 % drawn as val, stratified, seed 0"


def test_a_draw_is_the_same_again_and_another_by_another_seed() -> None:
    first, again, other = (
        draw(NAMES, CLASSES, [None] * 150, Preparation(test_fraction=0.5, split_seed=seed))[0]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert 40 < sum(one != two for one, two in zip(first, other, strict=True)) < 110


def test_an_image_that_is_added_moves_few_others() -> None:
    preparation = Preparation(test_fraction=0.2)
    before = draw(NAMES, CLASSES, [None] * 150, preparation)[0]
    after = draw([*NAMES, "a/new.png"], [*CLASSES, "a"], [None] * 151, preparation)[0]
    assert sum(one != two for one, two in zip(before, after, strict=False)) <= 1


def test_the_order_of_the_images_decides_nothing() -> None:
    preparation = Preparation(val_fraction=0.3)
    forward = draw(NAMES, CLASSES, [None] * 150, preparation)[0]
    backward = draw(NAMES[::-1], CLASSES[::-1], [None] * 150, preparation)[0]
    assert forward == backward[::-1]


@pytest.mark.parametrize(
    ("own", "options", "counts", "rule"),
    [
        ({}, {}, (105, 15, 30), "20 % drawn as test and 10 % drawn as val, stratified, seed 0"),
        ({}, {"val_fraction": 0.0}, (120, 0, 30), "20 % drawn as test, stratified, seed 0"),
        (
            {},
            {"val_fraction": 0.3},
            (75, 45, 30),
            "20 % drawn as test and 30 % drawn as val, stratified, seed 0",
        ),
        ({}, {"test_fraction": 0.0}, (135, 15, 0), "10 % drawn as val, stratified, seed 0"),
        ({}, {"val_fraction": 0.0, "test_fraction": 0.0}, (150, 0, 0), "from the source"),
        ({"test": 30}, {}, (108, 12, 30), "10 % drawn as val, stratified, seed 0"),
        (
            {"test": 90},
            {},
            (60, 0, 90),
            "from the source; no val, because it would have 6 images, fewer than 10",
        ),
        ({"val": 50}, {}, (100, 50, 0), "from the source"),
        ({"val": 50, "test": 50}, {}, (50, 50, 50), "from the source"),
        (
            {},
            {"test_fraction": 0.8},
            (30, 0, 120),
            (
                "80 % drawn as test, stratified, seed 0; no val, because it would have 7 images,"
                " fewer than 10"
            ),
        ),
    ],
)
def test_by_default_a_fifth_becomes_test_and_a_tenth_val(own, options, counts, rule) -> None:
    source_splits = [split for split, count in own.items() for _ in range(count)]
    given_splits = [*source_splits, *[None] * (150 - len(source_splits))]
    mixed = [given_splits[place * 7 % 150] for place in range(150)]
    drawn = draw(NAMES, CLASSES, mixed, Preparation(**options))
    assert tuple(drawn.splits.count(split) for split in ("train", "val", "test")) == counts
    assert drawn.rule == rule
    assert all(
        split == source_split
        for split, source_split in zip(drawn.splits, mixed, strict=True)
        if source_split
    )


def test_the_default_test_split_does_not_depend_on_val() -> None:
    drawn = [
        [
            split == "test"
            for split in draw(NAMES, CLASSES, [None] * 150, Preparation(val_fraction=val)).splits
        ]
        for val in (None, 0.0, 0.3)
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_val_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        draw(NAMES, CLASSES, [None] * 150, Preparation(val_fraction=0.8))
    assert (
        str(raised.value)
        == "80 % for val and 20 % for test (the default) leave no training images. Decrease --val"
        " or set --test (in Python, val_fraction or test_fraction)."
    )


def test_val_is_drawn_from_training_beside_a_test_split() -> None:
    own = ["train"] * 100 + ["test"] * 50
    drawn = draw(NAMES, CLASSES, own, Preparation(val_fraction=0.1))
    assert drawn.splits[100:] == ["test"] * 50
    assert Counter(drawn.splits[:100]) == {"train": 90, "val": 10}


def test_a_split_that_is_there_cannot_be_drawn() -> None:
    with pytest.raises(DataError) as raised:
        draw(["a", "b"], [0, 0], ["train", "test"], Preparation(test_fraction=0.5))
    assert (
        str(raised.value)
        == "The source already has a test split, so lamina cannot draw one. Leave out --test (in"
        " Python, test_fraction), or merge the splits of the source."
    )


@pytest.mark.parametrize("size", [10, 20, 33])
def test_small_strata_come_to_the_share_asked_for_together(size: int) -> None:
    names = [str(number) for number in range(size)]
    strata = REGRESSION.strata(np.arange(size, dtype=np.float32)[:, None])
    splits = draw(names, strata, [None] * size, Preparation(test_fraction=0.2))[0]
    assert splits.count("test") == round(size * 0.2)


def test_a_split_that_would_be_empty_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        draw(["a", "b"], [0, 1], [None, None], Preparation(test_fraction=0.2))
    assert (
        str(raised.value)
        == "20 % of 2 images is too few for a test split. Add images, or increase --test (in"
        " Python, test_fraction); 0 draws no test."
    )
    unasked = draw(["a", "b"], [0, 1], [None, None], Preparation())
    assert (unasked.splits, unasked.rule) == (
        ["train", "train"],
        (
            "no test, because it would have 0 images, fewer than 1; no val, because it would"
            " have 0 images, fewer than 10"
        ),
    )


@given(
    strata=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    val=st.floats(0, 0.5, exclude_max=True),
    test=st.floats(0, 0.5, exclude_max=True),
)
def test_no_stratum_is_left_without_training_images(
    strata: list[int], val: float, test: float
) -> None:
    names = [str(number) for number in range(len(strata))]
    try:
        preparation = Preparation(val_fraction=val, test_fraction=test)
        splits = draw(names, strata, [None] * len(strata), preparation)[0]
    except DataError:
        return  # too few images for a split
    trained = {stratum for stratum, split in zip(strata, splits, strict=True) if split == "train"}
    assert trained == set(strata)
