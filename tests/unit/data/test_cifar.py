"""The official batches are read, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import load_data
from lamina.data.sources.cifar import read_pickle
from lamina.errors import DataError, LaminaWarning
from support.image_sources import Batches, make_batches


@pytest.mark.parametrize("protocol", range(5))
def test_batches_of_each_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    batches = make_batches(protocol)
    data = load_data(batches.write_archive(tmp_path / "a.tar.gz"))
    np.testing.assert_array_equal(data.train.pixels, batches.train)
    np.testing.assert_array_equal(data.test.targets, batches.test_targets)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda path: Call(os.system, f"touch {path}"), "system"),
        (lambda path: Call(open, str(path), "w"), "open"),
        (lambda path: Call(eval, f"open({str(path)!r}, 'w')"), "eval"),
        (lambda path: Call(np.save, str(path), 1), "save"),
    ],
)
def test_a_pickle_that_calls_is_rejected_and_not_run(
    attack, name: str, batches: Batches, tmp_path: Path
) -> None:
    target = tmp_path / "touched"
    batches.files["data_batch_2"] = pickle.dumps({b"data": attack(target), b"labels": []})
    archive = batches.write_archive(tmp_path / "a.tar.gz")

    asked = rf"its pickle asks for \w+\.{name}, which is neither an array nor a container"
    message = (
        rf"data_batch_2 is rejected: {asked}\. Download or unpack the official archive again\."
    )
    with pytest.raises(DataError, match=f"^{message}$"):
        load_data(archive)

    assert not list(tmp_path.glob("touched*"))


def test_an_array_of_objects_is_rejected(batches: Batches, tmp_path: Path) -> None:
    batches.files["test_batch"] = pickle.dumps(
        {b"data": np.array([[1], [2]], object), b"labels": [0, 1]}
    )
    with pytest.raises(DataError, match=r"test_batch is not .* array of uint8 in row order"):
        load_data(batches.write_folder(tmp_path / "set"))


def test_a_pickle_cannot_change_what_reads_the_next_one(tmp_path: Path) -> None:
    # BUILD on the class that stands for an array, with a state that would set its attributes.
    tampering = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x06pixelsK\x01s\x86b."
    with pytest.raises(DataError):
        read_pickle(tampering, "tampering")
    batches = make_batches()
    data = load_data(batches.write_folder(tmp_path / "set"))
    np.testing.assert_array_equal(data.train.pixels, batches.train)


@pytest.mark.parametrize("shape", [(2, 4), (10**9, 10**9), (-2, -3), (6, 1.0), "x"])
def test_an_array_of_another_size_than_it_says_is_rejected(
    shape, batches: Batches, tmp_path: Path
) -> None:
    class Lie:
        def __reduce__(self):
            state = (1, shape, np.dtype("u1"), False, bytes(6))
            return np.ndarray.__reduce__(np.zeros(1, np.uint8))[0], (np.ndarray, (0,), b"b"), state

    batches.files["test_batch"] = pickle.dumps({b"data": Lie(), b"labels": [0, 1]})
    with pytest.raises(
        DataError, match="test_batch is not a batch of 32×32 RGB images with labels"
    ):
        load_data(batches.write_folder(tmp_path / "set"))


def test_a_batch_with_fewer_names_than_images_is_rejected(batches: Batches, tmp_path: Path) -> None:
    fields = {b"data": batches.test.reshape(10, -1), b"labels": [0] * 10, b"filenames": [b"a.png"]}
    batches.files["test_batch"] = pickle.dumps(fields, 2)
    with pytest.raises(DataError, match="test_batch is not a batch of 32×32 RGB images"):
        load_data(batches.write_folder(tmp_path / "set"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda files: files.pop("data_batch_3"),
            "{path} does not contain data_batch_3. Download or unpack the official archive again.",
        ),
        (
            lambda files: files.update(test_batch=files["test_batch"][:100]),
            (
                "test_batch is damaged: pickle data was truncated. Download or unpack the official"
                " archive again."
            ),
        ),
        (
            lambda files: files.update(test_batch=pickle.dumps({"data": 1})),
            (
                "test_batch is not a batch of 32×32 RGB images with labels: AttributeError(\"'int'"
                " object has no attribute 'state'\"). Download or unpack the official archive"
                " again."
            ),
        ),
    ],
)
def test_damaged_files_say_what_to_do(
    damage, message: str, batches: Batches, tmp_path: Path
) -> None:
    damage(batches.files)
    path = batches.write_folder(tmp_path / "set")
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert str(raised.value) == message.format(path=path)


@pytest.mark.filterwarnings("ignore:.* train has no images of")
def test_cifar100_is_read_from_its_own_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), np.uint8)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for split, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        labels = [0, 1, 2, 5, 1, 5][rows]
        fields = {
            b"data": pixels[rows],
            b"fine_labels": labels,
            b"coarse_labels": [0] * len(labels),
        }
        (folder / split).write_bytes(pickle.dumps(fields, 2))
    names = [f"class {number}" for number in range(100)]
    (folder / "meta").write_bytes(
        pickle.dumps({b"fine_label_names": names, b"coarse_label_names": ["x"]}, 2)
    )

    with pytest.warns(
        LaminaWarning,
        match="cifar-100-python: test has no images of class 0, class 2, so scores on test",
    ):
        data = load_data(folder)

    assert data.train.targets.tolist() == [0, 1, 2, 5]
    assert data.test.target_names[5] == "class 5"
    np.testing.assert_array_equal(
        data.test.pixels, pixels[4:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    )


def test_a_pickle_that_numbers_its_parts_high_takes_no_memory() -> None:
    # 8 GiB in the unpickler that is written in C
    assert read_pickle(b"\x80\x02}r\xff\xff\xff\x3f.", "damaged") == {}


@given(st.data())
def test_damaged_pickles_never_raise_anything_else(data: st.DataObject) -> None:
    pickled = bytearray(
        pickle.dumps({b"data": np.arange(6, dtype=np.uint8), b"labels": [1, 2], b"names": ["a"]}, 2)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        content = read_pickle(bytes(pickled), "damaged")
    except DataError:
        return
    assert all(isinstance(key, str) for key in content)
