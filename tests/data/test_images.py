"""Images and data sets are what they say, or are refused."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Dataset, Images
from lamina.errors import DataError

PIXELS = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
NAMES = ("a", "b", "c", "d")


def make_images(targets: np.ndarray, target_names: tuple[str, ...], pixels=PIXELS, names=NAMES) -> Images:
    return Images(pixels, targets, target_names, names, "train")


def test_the_shape_is_as_a_net_meets_it() -> None:
    images = make_images(np.array([0, 1, 1, 0]), ("cat", "dog"))
    assert images.shape == (3, 2, 3)
    assert len(images) == 4


def test_a_print_of_images_is_short() -> None:
    assert repr(make_images(np.zeros(4, np.int64), ("cat",))) == "Images(target_names=('cat',), split='train')"


@pytest.mark.parametrize(
    ("targets", "target_names", "counts"),
    [
        (np.array([0, 2, 2, 0]), ("cat", "dog", "owl"), {"cat": 2, "dog": 0, "owl": 2}),
        (np.array([[1, 0], [1, 1], [0, 0], [1, 0]], bool), ("wet", "warm"), {"wet": 3, "warm": 1}),
        (np.array([1, 0, 0, 0], bool), ("open",), {"no": 3, "yes": 1}),
        (np.zeros((4, 2), np.float32), ("x", "y"), {}),
    ],
)
def test_every_kind_of_target_is_counted(targets: np.ndarray, target_names: tuple[str, ...], counts: dict) -> None:
    assert make_images(targets, target_names).target_counts() == counts


@given(st.lists(st.integers(0, 3)))
def test_taking_keeps_picture_target_and_name_together(rows: list[int]) -> None:
    taken = make_images(np.array([3, 2, 1, 0]), NAMES).take(rows)
    np.testing.assert_array_equal(taken.pixels, PIXELS[np.array(rows, int)])
    assert taken.targets.tolist() == [3 - row for row in rows]
    assert taken.names == tuple(NAMES[row] for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pixels": PIXELS.astype(np.float32)},
            "pixels are a uint8 array of four dimensions (N, H, W, C); got float32 with shape (4, 2, 3, 3).",
        ),
        (
            {"pixels": PIXELS[0]},
            "pixels are a uint8 array of four dimensions (N, H, W, C); got uint8 with shape (2, 3, 3).",
        ),
        ({"names": ("a",)}, "every image has one target and one name; got 4 images, 4 targets and 1 names."),
        (
            {"targets": np.zeros(4)},
            "Expected targets of int64 (N,) for one class an image, bool (N, K) for labels, bool (N,) for yes or no, "
            "or float32 (N, K) for numbers, got float64 of shape (4,).",
        ),
        (
            {"targets": np.array([0, 1, 2, 0])},
            "Expected class numbers from 0 to 1, one for each of 2 names, got 0 to 2.",
        ),
        (
            {"targets": np.array([0, -1, 1, 0])},
            "Expected class numbers from 0 to 1, one for each of 2 names, got -1 to 1.",
        ),
        (
            {"targets": np.zeros((4, 3), bool)},
            "Expected a name for each column of the targets, got 3 columns and 2 names.",
        ),
        ({"targets": np.zeros(4, bool)}, "Expected a name for each column of the targets, got 1 column and 2 names."),
    ],
)
def test_images_that_cannot_be_are_refused(change: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As for a user: the types are checked in tests alone, and would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError) as raised:
        make_images(**{"targets": np.zeros(4, np.int64), "target_names": ("cat", "dog")} | change)
    assert str(raised.value) == message


def test_a_data_set_lists_the_splits_that_it_has() -> None:
    images = make_images(np.zeros(4, np.int64), ("cat",))
    assert Dataset("set", "0", images, test=images).splits == {"train": images, "test": images}
