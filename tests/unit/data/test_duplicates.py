"""Duplicates, against a comparison of all pairs."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lamina.data.arrays import digest_rows
from lamina.data.duplicates import group_duplicates


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
