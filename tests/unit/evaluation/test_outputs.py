"""Outputs survive a round trip; a damaged file raises one clear error, and nothing is unpickled."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from lamina.errors import RunError
from lamina.evaluation.outputs import Outputs, pack_outputs, unpack_outputs

RANDOM = np.random.default_rng(0)
TARGETS = {
    "single-label": np.array([2, 0, 1]),
    "multi-label": np.array([[True, False], [False, False], [True, True]]),
    "binary": np.array([True, False, True]),
    "regression": np.array([[0.5], [2.0], [-1.0]], np.float32),
}
NAMES = ("cats/ä 1.png", "b\udc80.png", "new\nline.png")  # the second is no UTF-8 on disk


def example(kind: str = "single-label", split: str = "test") -> Outputs:
    targets = TARGETS[kind]
    outputs = 3 if targets.ndim == 1 else targets.shape[1]
    return Outputs(split, RANDOM.normal(size=(3, outputs)).astype(np.float32), targets, NAMES)


@pytest.mark.parametrize("kind", TARGETS)
def test_outputs_survive_a_round_trip(kind):
    written = [example(kind), example(kind, "val")]
    read = unpack_outputs(pack_outputs(written), "logits.npz")
    assert list(read) == ["val", "test"]
    for one in written:
        found = read[one.split]
        assert np.array_equal(found.logits, one.logits)
        assert np.array_equal(found.targets, one.targets)
        assert found.targets.dtype == one.targets.dtype
        assert found.names == NAMES


def test_equal_outputs_give_equal_files():
    outputs = example()
    assert pack_outputs([outputs]) == pack_outputs([outputs])


def test_no_damage_passes_for_outputs():
    outputs = example()
    content = pack_outputs([outputs])
    rejected = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        try:
            read = unpack_outputs(bytes(changed), "logits.npz")
        except RunError as error:
            assert str(error).startswith("logits.npz is damaged: ")
            rejected += 1
        else:  # what does not count, such as the time in the zip's directory
            assert all(
                np.array_equal(one.logits, outputs.logits) and one.names == NAMES
                for one in read.values()
            )
    assert rejected > len(content) / 2
    for length in range(0, len(content), 7):
        with pytest.raises(RunError, match="is damaged"):
            unpack_outputs(content[:length], "logits.npz")


def save(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_nothing_is_unpickled(tmp_path):
    class Injected:
        def __reduce__(self):
            return (tmp_path.joinpath("injected").touch, ())

    objects = np.array([Injected(), Injected()], dtype=object)
    content = save(
        test_logits=objects, test_targets=np.array([0, 1]), test_names=np.array(["a", "b"])
    )
    for given in (content, pickle.dumps(Injected())):
        with pytest.raises(RunError, match="is damaged") as error:
            unpack_outputs(given, "logits.npz")
        assert "unsafely" not in str(error.value)  # NumPy's advice
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"test_logits": np.zeros((2, 3), np.float32)},
            (
                "logits.npz is damaged: expected float32 logits, targets and names of the same"
                " number of test images, got float32 of shape (2, 3), int64 of shape (3,), <U1 of"
                " shape (3,). Use lamina resume to write it again."
            ),
        ),
        (
            {"test_targets": np.zeros(3, np.int8)},
            (
                "logits.npz is damaged: Expected targets of int64 (N,) for one class per image,"
                " bool (N, K) for labels, bool (N,) for yes or no, or float32 (N, K) for numbers,"
                " got int8 of shape (3,). Use lamina resume to write it again."
            ),
        ),
        (
            {"test_names": np.array([None, "b", "c"])},
            (
                "logits.npz is damaged: Object arrays cannot be loaded when allow_pickle=False. Use"
                " lamina resume to write it again."
            ),
        ),
        (
            {"extra": np.zeros(3)},
            (
                "logits.npz is damaged: expected logits, targets and names of train, val, test, got"
                " test_logits, test_targets, test_names, extra. Use lamina resume to write it"
                " again."
            ),
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
        unpack_outputs(save(**(arrays | changed)), "logits.npz")
    assert str(error.value) == message
