"""Images and data sets: consistent, or rejected."""

from __future__ import annotations

import re

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Dataset, Images
from lamina.data.arrays import CONVERT_TARGETS, TARGETS
from lamina.data.images import Leak
from lamina.errors import DataError, LaminaWarning

PIXELS = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
NAMES = ("a", "b", "c", "d")


def images_with(
    targets: np.ndarray, target_names: tuple[str, ...], pixels=PIXELS, names=NAMES
) -> Images:
    return Images(pixels, targets, target_names, names, "train")


def test_the_shape_is_as_a_net_meets_it() -> None:
    images = images_with(np.array([0, 1, 1, 0]), ("cat", "dog"))
    assert images.shape == (3, 2, 3)
    assert len(images) == 4


def test_a_print_of_images_is_short() -> None:
    assert (
        repr(images_with(np.zeros(4, np.int64), ("cat",)))
        == "Images(train: 4 images of 2×3×3, single-label, 1 class)"
    )


@pytest.mark.parametrize(
    ("targets", "target_names", "counts"),
    [
        (np.array([0, 2, 2, 0]), ("cat", "dog", "owl"), {"cat": 2, "dog": 0, "owl": 2}),
        (np.array([[1, 0], [1, 1], [0, 0], [1, 0]], bool), ("wet", "warm"), {"wet": 3, "warm": 1}),
        (np.array([1, 0, 0, 0], bool), ("open",), {"no": 3, "yes": 1}),
        (np.zeros((4, 2), np.float32), ("x", "y"), {}),
    ],
)
def test_every_kind_of_target_is_counted(
    targets: np.ndarray, target_names: tuple[str, ...], counts: dict
) -> None:
    assert images_with(targets, target_names).target_counts() == counts


@given(st.lists(st.integers(0, 3)))
def test_taking_keeps_image_target_and_name_together(rows: list[int]) -> None:
    taken = images_with(np.array([3, 2, 1, 0]), NAMES).take(rows)
    np.testing.assert_array_equal(taken.pixels, PIXELS[np.array(rows, int)])
    assert taken.targets.tolist() == [3 - row for row in rows]
    assert taken.names == tuple(NAMES[row] for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pixels": PIXELS.astype(np.float32)},
            (
                "Expected pixels as a uint8 array of four dimensions (N, H, W, C), got float32 of"
                " shape (4, 2, 3, 3)."
            ),
        ),
        (
            {"pixels": PIXELS[0]},
            (
                "Expected pixels as a uint8 array of four dimensions (N, H, W, C), got uint8 of"
                " shape (2, 3, 3)."
            ),
        ),
        (
            {"names": ("a",)},
            "Expected one target and one name for each image, got 4 images, 4 targets and 1 names.",
        ),
        (
            {"targets": np.zeros(4)},
            (
                "Expected targets of int64 (N,) for one class per image, bool (N, K) for labels,"
                " bool (N,) for yes or no, or float32 (N, K) for numbers, got float64 of shape"
                " (4,)."
            ),
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
        (
            {"targets": np.zeros(4, bool)},
            "Expected a name for each column of the targets, got 1 column and 2 names.",
        ),
    ],
)
def test_images_that_cannot_be_are_refused(
    change: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a user: the types are checked in tests alone, and would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError) as raised:
        images_with(**{"targets": np.zeros(4, np.int64), "target_names": ("cat", "dog")} | change)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            Images.from_arrays(np.zeros((2, 16, 16), np.uint8), ["cat", "dog"]),
            (
                "the same image shape, but in arrays, train has 8×8×1, and val has 16×16×1. Resize"
                " the images to one size."
            ),
        ),
        (
            Images.from_arrays(np.zeros((2, 8, 8), np.uint8), [True, False], ["cat"]),
            (
                "the same kind of target, but in arrays, train has single-label, and val has"
                " binary. Use one kind of target in all splits."
            ),
        ),
        (
            Images.from_arrays(np.zeros((2, 8, 8), np.uint8), ["cat", "\x1bowl"]),
            (
                "the same target names, but in arrays, train has cat, dog, and val has \\x1bowl,"
                " cat. Pass the same names for all splits, as in Images.from_arrays(x, y, names)."
            ),
        ),
        (
            Images.from_arrays(
                np.zeros((2, 8, 8), np.uint8), ["cat", "dog"], ["cat", "dog", "owl"]
            ),
            (
                "the same target names, but in arrays, train has cat, dog, and val has cat, dog,"
                " owl. Pass the same names for all splits, as in Images.from_arrays(x, y, names)."
            ),
        ),
    ],
)
def test_splits_that_do_not_fit_each_other_are_rejected(other: Images, message: str) -> None:
    train = Images.from_arrays(np.zeros((2, 8, 8), np.uint8), ["cat", "dog"])
    with pytest.raises(DataError) as raised:
        Dataset.from_images(train, val=other)
    assert str(raised.value) == f"All splits of a data set must have {message}"


def test_a_data_set_lists_the_splits_that_it_has() -> None:
    images = images_with(np.zeros(4, np.int64), ("cat",))
    assert Dataset("set", "0", images, test=images).splits == {"train": images, "test": images}


@pytest.mark.parametrize(
    ("y", "names", "kind", "targets", "target_names"),
    [
        (np.array([2, 0, 1, 1], np.uint8), None, "single-label", [2, 0, 1, 1], ("0", "1", "2")),
        ([1, 0, 1, 1], ["cat", "dog", "owl"], "single-label", [1, 0, 1, 1], ("cat", "dog", "owl")),
        (["dog", "cat", "cat", "dog"], None, "single-label", [1, 0, 0, 1], ("cat", "dog")),
        (
            np.array(["b", "a", "b", "b"], object),
            ("b", "a", "c"),
            "single-label",
            [0, 1, 0, 0],
            ("b", "a", "c"),
        ),
        ([True, False, True, True], ["metal"], "binary", [True, False, True, True], ("metal",)),
        (
            np.eye(4, 2) > 0,
            None,
            "multi-label",
            (np.eye(4, 2) > 0).tolist(),
            ("label_0", "label_1"),
        ),
        (np.array([0.5, 1, 2, 3]), ["age"], "regression", [[0.5], [1], [2], [3]], ("age",)),
        (np.full((4, 2), 3, np.float16), ["x", "y"], "regression", [[3, 3]] * 4, ("x", "y")),
    ],
)
def test_images_come_from_arrays(
    y, names, kind: str, targets, target_names: tuple[str, ...]
) -> None:
    images = Images.from_arrays(PIXELS, y, names, split="test")
    assert (images.kind.name, images.targets.tolist(), images.target_names) == (
        kind,
        targets,
        target_names,
    )
    assert (images.split, images.names) == ("test", ("00000", "00001", "00002", "00003"))
    np.testing.assert_array_equal(images.pixels, PIXELS)


def test_grey_images_and_tensors_become_images() -> None:
    import torch

    images = Images.from_arrays(torch.from_numpy(PIXELS[..., 0]), torch.tensor([0, 1, 0, 1]))
    assert images.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("x", "y", "names", "message"),
    [
        (
            PIXELS / PIXELS.max(),
            [0] * 4,
            None,
            (
                "x must be a uint8 array of shape (N, H, W) or (N, H, W, C), 0 to 255, got float64"
                f" of shape {PIXELS.shape} with values from 0 to 1. Convert values from 0 to 1 with"
                " (x * 255.0).round().astype(np.uint8); pass a single image as x[None]."
            ),
        ),
        (
            np.zeros((4, 3, 8, 8), np.uint8),
            [0] * 4,
            None,
            "Expected x with channels last, got shape (4, 3, 8, 8). Use x.transpose(0, 2, 3, 1).",
        ),
        (
            PIXELS,
            [0] * 3,
            None,
            "Expected one target and one name for each image, got 4 images, 3 targets and 4 names.",
        ),
        (
            PIXELS,
            np.eye(4, dtype=int),
            None,
            f"{TARGETS}, got int64 of shape (4, 4). {CONVERT_TARGETS}",
        ),
        (
            PIXELS,
            [0, 2, 0, 0],
            ["a", "b"],
            "Expected class numbers from 0 to 1, one for each of 2 names, got 0 to 2.",
        ),
        (
            PIXELS,
            ["a", None, "a", "a"],
            None,
            f"{TARGETS}, got object of shape (4,). {CONVERT_TARGETS}",
        ),
        (
            PIXELS,
            [0, 1, 0, 1],
            ["a", "a"],
            (
                "names must be a list of different strings, one for each class, label or number, in"
                " order, such as ['cat', 'dog'], got ['a', 'a']."
            ),
        ),
        (
            PIXELS,
            ["a", "z", "a", "a"],
            ["a", "b"],
            "y has z, not listed in names: a, b. Add them to names.",
        ),
        (
            PIXELS,
            [0, 5, 0, 0],
            None,
            (
                "y has the classes 0, 5, but classes must be 0, 1, 2 … without gaps. Renumber them"
                " with _, y = np.unique(y, return_inverse=True), or pass names for all numbers."
            ),
        ),
        (
            PIXELS,
            [0.0, 1.0, 0.0, 0.0],
            None,
            (
                "y has whole numbers as float64 of shape (4,), which may be classes, labels or"
                f" numbers to predict. {CONVERT_TARGETS}"
            ),
        ),
        (
            PIXELS,
            [0.5, np.nan, 0, 0],
            None,
            f"{TARGETS}, got float64 of shape (4,). {CONVERT_TARGETS}",
        ),
    ],
)
def test_arrays_that_are_no_images_say_what_to_do(
    x, y, names, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError) as raised:
        Images.from_arrays(x, y, names)
    assert str(raised.value) == message


def test_a_data_set_is_shown_as_a_small_table() -> None:
    names = ("<b>cat</b>", *(f"class {number}" for number in range(99)))
    images = images_with(np.array([0, 1, 1, 2]), names)
    dataset = Dataset("a & b", "0", images, test=images)
    assert repr(dataset) == "Dataset(a & b: 2×3×3, single-label, 100 classes: train 4, test 4)"
    shown = dataset._repr_html_()
    assert "<b>Dataset(a &amp; b: 2×3×3, single-label, 100 classes)</b>" in shown
    rows = re.findall(
        r"<tr>(.*?)</tr>", re.sub(r"<img[^>]*>", "▪", re.sub(r' class="[^"]*"', "", shown))
    )
    assert rows[:3] == [
        "<td></td><td></td><th>train</th><th>test</th>",
        "<td>&lt;b&gt;cat&lt;/b&gt;</td><td>▪</td><td>1</td><td>1</td>",
        "<td>class 0</td><td>▪▪</td><td>2</td><td>2</td>",
    ]
    assert rows[-2:] == [
        "<td>and 80 more</td><td></td><td></td><td></td>",
        "<td>total</td><td></td><td>4</td><td>4</td>",
    ]
    assert len(shown) < 9000


def test_images_are_shown_from_low_to_high_or_evenly_spread() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(12, 1, 1)
    numbers = Images.from_arrays(pixels, np.arange(12.0)[::-1] + 0.5)
    assert numbers.choose_samples(3) == {"target": [11, 6, 0]}
    assert "low to high" in numbers._repr_html_()
    question = Images.from_arrays(pixels, np.arange(12) < 2)
    assert question.choose_samples(3) == {"no": [2, 6, 11], "yes": [0, 1]}
    shown = question._repr_html_()
    assert shown.count("<img") == 6 + 2
    assert "script" not in shown


def test_the_fingerprint_of_images_in_memory_is_of_their_content() -> None:
    one = Images.from_arrays(PIXELS, [0, 1, 0, 1])
    changed = PIXELS.copy()
    changed[3, 0, 0, 0] ^= 1
    prints = [
        Dataset.from_images(one),
        Dataset.from_images(Images.from_arrays(PIXELS, [0, 1, 1, 1])),
        Dataset.from_images(Images.from_arrays(changed, [0, 1, 0, 1])),
        Dataset.from_images(one, test=Images.from_arrays(PIXELS + 100, [0, 1, 0, 1])),
    ]
    assert len({dataset.fingerprint for dataset in prints}) == len(prints)
    assert (
        Dataset.from_images(Images.from_arrays(PIXELS, [0, 1, 0, 1])).fingerprint
        == prints[0].fingerprint
    )


def test_images_in_two_splits_are_leaks() -> None:
    train, other = (
        Images.from_arrays(PIXELS, [0, 1, 0, 1]),
        np.concatenate([PIXELS + 100, PIXELS[2:3]]),
    )
    said = (
        r"1 image is in two splits.*: 00004 of test is 00002 of train\. Keep each image in one"
        r" split only\."
    )
    with pytest.warns(LaminaWarning, match=said):
        data = Dataset.from_images(train, test=Images.from_arrays(other, [0, 1, 0, 1, 1]))
    assert data.leaks == (Leak("00004", "test", "00002", "train"),)
    with pytest.warns(LaminaWarning, match="4 images are in two splits"):
        assert len(Dataset.from_images(train, test=train).leaks) == 4
    with pytest.warns(LaminaWarning, match=r"8 images are in two splits .* and 5 more\."):
        assert len(Dataset.from_images(train, val=train, test=train).leaks) == 12
    assert (
        Dataset.from_images(train, test=Images.from_arrays(PIXELS + 100, [0, 1, 0, 1])).leaks == ()
    )


def test_a_class_without_images_is_named() -> None:
    with pytest.warns(LaminaWarning, match="train has no images of owl"):
        Dataset.from_images(Images.from_arrays(PIXELS, [0, 1, 0, 1], ["cat", "dog", "owl"]))
    train, val = (
        Images.from_arrays(PIXELS, [0, 1, 0, 1]),
        Images.from_arrays(PIXELS + 100, [0] * 4, ["0", "1"]),
    )
    with pytest.warns(
        LaminaWarning, match="val has no images of 1, so scores on val do not cover it"
    ):
        Dataset.from_images(train, val)


def test_images_of_0_and_1_are_reported() -> None:
    with pytest.warns(LaminaWarning, match="only the pixel values 0 and 1"):
        Images.from_arrays(np.eye(4, dtype=np.uint8)[None].repeat(2, 0), [0, 1])


def test_many_different_whole_floats_are_numbers_to_predict() -> None:
    x = np.zeros((60, 2, 2), np.uint8)
    assert Images.from_arrays(x, np.arange(60.0) * 10).kind.name == "regression"
    with pytest.raises(DataError, match="may be classes, labels or numbers"):
        Images.from_arrays(x, np.arange(60.0) // 3)


def test_a_slice_of_images_is_images() -> None:
    images = Images.from_arrays(PIXELS, [0, 1, 0, 1])
    assert images[1:3].names == ("00001", "00002")
    assert images[:0].names == ()
    assert images[::-1].targets.tolist() == [1, 0, 1, 0]
    assert images.take([-1]).names == ("00003",)
    assert images.take(np.array([3, 0], np.uint8)).names == ("00003", "00000")
    for wrong in ([4], [-5], np.array([2**64 - 9], np.uint64)):
        with pytest.raises(DataError, match="indices must be whole numbers"):
            images.take(wrong)


def test_an_empty_split_keeps_its_name() -> None:
    train = Images.from_arrays(PIXELS, [0, 1, 0, 1])
    data = Dataset.from_images(train, val=train[:0], test=train[:0])
    assert (data.val.split, data.test.split) == ("val", "test")
    assert list(data.splits) == ["train"]
