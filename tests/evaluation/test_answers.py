"""Answers are read as they were written; a damaged file gives one clear error, and nothing is unpickled."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from lamina.errors import RunError
from lamina.evaluation.answers import Answers, pack_answers, unpack_answers

RANDOM = np.random.default_rng(0)
TARGETS = {
    "single-label": np.array([2, 0, 1]),
    "multi-label": np.array([[True, False], [False, False], [True, True]]),
    "binary": np.array([True, False, True]),
    "regression": np.array([[0.5], [2.0], [-1.0]], np.float32),
}
NAMES = ("cats/ä 1.png", "b\udc80.png", "new\nline.png")  # the second is no UTF-8 on disk


def example(kind: str = "single-label", split: str = "test") -> Answers:
    targets = TARGETS[kind]
    outputs = 3 if targets.ndim == 1 else targets.shape[1]
    return Answers(split, RANDOM.normal(size=(3, outputs)).astype(np.float32), targets, NAMES)


@pytest.mark.parametrize("kind", TARGETS)
def test_answers_are_read_as_they_were_written(kind):
    written = [example(kind), example(kind, "val")]
    read = unpack_answers(pack_answers(written), "answers.npz")
    assert list(read) == ["val", "test"]
    for one in written:
        found = read[one.split]
        assert np.array_equal(found.logits, one.logits)
        assert np.array_equal(found.targets, one.targets)
        assert found.targets.dtype == one.targets.dtype
        assert found.names == NAMES


def test_the_same_answers_give_the_same_file():
    answers = example()
    assert pack_answers([answers]) == pack_answers([answers])


def test_no_damage_passes_for_answers():
    answers = example()
    content = pack_answers([answers])
    rejected = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        try:
            read = unpack_answers(bytes(changed), "answers.npz")
        except RunError as error:
            assert str(error).startswith("answers.npz is damaged: ")
            rejected += 1
        else:  # what does not count, such as the time in the zip's directory
            assert all(np.array_equal(one.logits, answers.logits) and one.names == NAMES for one in read.values())
    assert rejected > len(content) / 2
    for length in range(0, len(content), 7):
        with pytest.raises(RunError, match="is damaged"):
            unpack_answers(content[:length], "answers.npz")


def save(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_nothing_is_unpickled(tmp_path):
    class Planted:
        def __reduce__(self):
            return (tmp_path.joinpath("planted").touch, ())

    objects = np.array([Planted(), Planted()], dtype=object)
    content = save(test_logits=objects, test_targets=np.array([0, 1]), test_names=np.array(["a", "b"]))
    for given in (content, pickle.dumps(Planted())):
        with pytest.raises(RunError, match="is damaged") as error:
            unpack_answers(given, "answers.npz")
        assert "unsafely" not in str(error.value)  # NumPy's advice
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"test_logits": np.zeros((2, 3), np.float32)},
            "answers.npz is damaged: expected logits of float32, targets and names of as many test images, got float32 "
            "of shape (2, 3), int64 of shape (3,), <U1 of shape (3,). lamina resume writes it again.",
        ),
        (
            {"test_targets": np.zeros(3, np.int8)},
            "answers.npz is damaged: Expected targets of int64 (N,) for one class per image, bool (N, K) for labels, "
            "bool (N,) for yes or no, or float32 (N, K) for numbers, got int8 of shape (3,). lamina resume "
            "writes it again.",
        ),
        (
            {"test_names": np.array([None, "b", "c"])},
            "answers.npz is damaged: it holds Python objects. lamina resume writes it again.",
        ),
        (
            {"extra": np.zeros(3)},
            "answers.npz is damaged: expected logits, targets and names of train, val, test, got test_logits, "
            "test_targets, test_names, extra. lamina resume writes it again.",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(changed, message):
    arrays = {
        "test_logits": np.zeros((3, 3), np.float32),
        "test_targets": np.array([0, 1, 2]),
        "test_names": np.array(["a", "b", "c"]),
    }
    with pytest.raises(RunError) as error:
        unpack_answers(save(**(arrays | changed)), "answers.npz")
    assert str(error.value) == message
