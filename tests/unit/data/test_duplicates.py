"""Duplicates, against a comparison of all pairs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lamina.data.digests import digest_rows
from lamina.data.duplicates import find_leaks, group_duplicates, unite_copies


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_groups_hold_exactly_the_equal_places(digests: list[str]) -> None:
    groups = group_duplicates(pl.Series(digests, dtype=pl.String))
    together = {(one, other) for group in groups for one in group for other in group if one < other}
    assert together == {
        (one, other)
        for one in range(len(digests))
        for other in range(one + 1, len(digests))
        if digests[one] == digests[other]
    }
    assert groups == sorted(groups)
    assert all(list(group) == sorted(set(group)) for group in groups)


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(0, 6), st.just(1), st.just(2), st.just(1)),
        elements=st.integers(0, 1),
    )
)
def test_digests_are_equal_if_and_only_if_pixels_are(pixels: np.ndarray) -> None:
    digests = digest_rows(pixels)
    for one in range(len(pixels)):
        for other in range(len(pixels)):
            are_equal = np.array_equal(digests[one], digests[other])
            assert are_equal == np.array_equal(pixels[one], pixels[other])


def test_a_view_of_every_second_image_has_their_digests() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(digest_rows(pixels[::2]), digest_rows(pixels)[::2])
    tiles = pixels[:, ::2, ::2]
    np.testing.assert_array_equal(digest_rows(tiles), digest_rows(tiles.copy()))


def unite(splits: list[str], digests: list[str], own=None, groups=None) -> list[str]:
    columns = {
        "split": splits,
        "source_split": own or [None] * len(splits),
        "group": groups or [None] * len(splits),
        "digest": digests,
    }
    return unite_copies(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))[
        "split"
    ].to_list()


@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "val", "test"]), st.booleans(), st.sampled_from("pqr"))
    )
)
def test_splits_of_the_source_stay_and_drawn_ones_keep_half(rows) -> None:
    splits = [split for split, _, _ in rows]
    source_splits = [split if own else None for split, own, _ in rows]
    united = unite(splits, [digest for _, _, digest in rows], source_splits)
    for split, own in zip(united, source_splits, strict=True):
        assert own in (None, "train") or split == own
    drawn = [own in (None, "train") for own in source_splits]
    before, after = (
        Counter(split for split, is_drawn in zip(each, drawn, strict=True) if is_drawn)
        for each in (splits, united)
    )
    assert all(count / 2 <= after[split] <= 2 * count for split, count in before.items())


def test_drawn_copies_move_with_their_groups() -> None:
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    digests = [str(place) for place in range(12)]
    digests[11] = "0"
    assert unite(splits, digests) == [*splits[:11], "train"]
    groups = [f"g{place // 2}" for place in range(12)]
    assert unite(splits, digests, groups=groups) == [*splits[:10], "train", "train"]


def test_an_image_in_each_group_does_not_unite_the_groups() -> None:
    groups = [f"patient {place // 10}" for place in range(1000)]
    digests = ["black" if place % 10 == 0 else str(place) for place in range(1000)]
    splits = ["train"] * 700 + ["val"] * 100 + ["test"] * 200
    assert unite(splits, digests, groups=groups) == splits
    # Real copies still move.
    digests[999] = digests[1]
    moved = unite(splits, digests, groups=groups)
    assert moved == [*splits[:990], *["train"] * 10]


def test_copies_of_one_image_alone_stay_where_they_were_drawn() -> None:
    splits = ["train"] * 350 + ["val"] * 50 + ["test"] * 100
    assert unite(splits, ["black"] * 500) == splits
    leaks = find_leaks(pl.DataFrame({"split": splits, "digest": ["black"] * 500}))
    counts = leaks.group_by("split", "twin_split", maintain_order=True).len().rows()
    assert counts == [("test", "train", 100), ("val", "train", 50), ("test", "val", 100)]
