"""Arrays of images: what is made of them, and what is said of those that are wrong."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Preparation, load_data
from lamina.data.arrays import CONVERT_TARGETS, TARGETS
from lamina.errors import DataError
from support.table_sources import gray_noise, read_arrays

LAYOUT = (
    "Expected x_train and y_train; train_images and train_labels; x and y; or images and labels;"
    " with val or test in place of train for other splits; and, optionally, class_names. Save the"
    " arrays under these names."
)


def save(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "pets.npz", **arrays)
    return tmp_path / "pets.npz"


def rejection(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_arrays(path)
    return str(raised.value).replace(str(path.parent), "DIR")


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
def test_one_pair_of_arrays_has_no_split(keys: tuple[str, str], tmp_path: Path) -> None:
    path = save(tmp_path, **{keys[0]: gray_noise(3), keys[1]: np.array([1, 0, 2])})
    source = read_arrays(path)
    np.testing.assert_array_equal(source.pixels[..., 0], gray_noise(3))
    assert source.targets.tolist() == [1, 0, 2]
    assert source.splits == [None, None, None]
    assert source.names == ["00000", "00001", "00002"]
    assert source.target_names == ("0", "1", "2")
    assert source.label_reason == f"array {keys[1]}"


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        (np.array([True, False]), ("target",), [True, False]),
        (np.array([[True], [False]]), ("target",), [True, False]),
        (np.array(["cat", "dog"]), ("cat", "dog"), [0, 1]),
        (np.array([0.5, 1.25]), ("target",), [[0.5], [1.25]]),
        (np.array([[1], [0]], np.uint8), ("0", "1"), [1, 0]),
        (np.array([[0.5, 2], [1, 0.25]]), ("label_0", "label_1"), [[0.5, 2], [1, 0.25]]),
        (
            np.array([[True, True], [False, False]]),
            ("label_0", "label_1"),
            [[True, True], [False, False]],
        ),
    ],
)
def test_labels_become_targets(
    labels: np.ndarray, names: tuple[str, ...], targets: list, tmp_path: Path
) -> None:
    source = read_arrays(save(tmp_path, images=gray_noise(2), labels=labels))
    assert (source.target_names, source.targets.tolist()) == (names, targets)


def test_names_of_several_columns_name_them(tmp_path: Path) -> None:
    labels = np.array([[False, False], [True, True]])
    source = read_arrays(
        save(tmp_path, x=gray_noise(2), y=labels, class_names=np.array(["big", "red"]))
    )
    assert source.targets.tolist() == [[False, False], [True, True]]
    assert source.target_names == ("big", "red")


@given(
    shape=st.sampled_from([(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3), (2, 4, 5, 4)]),
    order=st.sampled_from("CF"),
)
def test_pixels_are_the_same_in_whatever_order_they_are_stored(
    shape, order: str, tmp_path_factory
) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = save(
        tmp_path_factory.getbasetemp(), x=np.asarray(pixels, order=order), y=np.array([0, 1])
    )
    expected = pixels[..., None] if pixels.ndim == 3 else pixels
    np.testing.assert_array_equal(read_arrays(path).pixels, expected)


CLASSES_OF_2 = np.array([0, 1])
EXPECTED_X = "DIR/pets.npz: x must be a uint8 array of shape (N, H, W) or (N, H, W, C), 0 to 255"
CONVERT_X = (
    "Convert values from 0 to 1 with (x * 255.0).round().astype(np.uint8); pass a single image as"
    " x[None]."
)
RANGE = f"{gray_noise(2).min()} to {gray_noise(2).max()}"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": gray_noise(2), "b": np.zeros(2)}, f"DIR/pets.npz has the arrays a, b. {LAYOUT}"),
        (
            {"x_train": gray_noise(2), "z": np.zeros(2)},
            f"DIR/pets.npz has the arrays x_train, z. {LAYOUT}",
        ),
        (
            {"x": gray_noise(2), "y": CLASSES_OF_2, "ids": np.arange(2)},
            f"DIR/pets.npz has the arrays x, y, ids. {LAYOUT}",
        ),
        (
            {"x_train": gray_noise(2), "y_train": CLASSES_OF_2, "x_test": gray_noise(2)},
            f"DIR/pets.npz has the arrays x_train, y_train, x_test. {LAYOUT}",
        ),
        (
            {"x": gray_noise(3), "y": CLASSES_OF_2},
            ("DIR/pets.npz has 3 images, but 2 labels. Create or download it again."),
        ),
        (
            {"x_test": gray_noise(3), "y_test": np.zeros((3, 2, 2))},
            (
                f"DIR/pets.npz, where y is y_test: {TARGETS}, got float64 of shape (3, 2, 2)."
                f" {CONVERT_TARGETS}"
            ),
        ),
        (
            {"x": gray_noise(2), "y": np.array(["a", {}], object)},
            (
                "Cannot read DIR/pets.npz: Object arrays cannot be loaded when allow_pickle=False."
                " Create or download it again."
            ),
        ),
        (
            {"x": gray_noise(2).reshape(2, -1), "y": CLASSES_OF_2},
            f"{EXPECTED_X}, got uint8 of shape (2, 20) with values from {RANGE}. {CONVERT_X}",
        ),
        (
            {"x": np.zeros((0, 3, 9), np.uint8), "y": np.zeros(0, int)},
            "DIR/pets.npz has no images. Check how you selected them.",
        ),
        (
            {"x": np.full((2, 3, 3), np.nan), "y": CLASSES_OF_2},
            f"{EXPECTED_X}, got float64 of shape (2, 3, 3) with values from nan to nan."
            f" {CONVERT_X}",
        ),
        (
            {
                "x_train": gray_noise(2),
                "y_train": CLASSES_OF_2,
                "x_test": gray_noise(2, 6),
                "y_test": CLASSES_OF_2,
            },
            (
                "The splits of DIR/pets.npz have pixels of different forms: train uint8"
                " (2, 4, 5, 1), test uint8 (2, 6, 5, 1). Save the same form in all splits."
            ),
        ),
        (
            {
                "x_train": gray_noise(2),
                "y_train": CLASSES_OF_2,
                "x_test": gray_noise(2),
                "y_test": np.array(["a", "b"]),
            },
            (
                "The splits of DIR/pets.npz have labels of different forms: train int64 (2,), test"
                " <U1 (2,). Save the same form in all splits."
            ),
        ),
        (
            {"x": gray_noise(2), "y": np.array([0, 1]), "class_names": np.array([3, 4])},
            (
                "DIR/pets.npz: names must be a list of different strings, one for each class, label"
                " or number, in order, such as ['cat', 'dog'], got [3, 4]."
            ),
        ),
    ],
)
def test_arrays_that_cannot_be_used_say_what_to_do(arrays, message: str, tmp_path: Path) -> None:
    assert rejection(save(tmp_path, **arrays)) == message


@pytest.mark.parametrize("classes", [3, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_one_hot_rows_are_never_numbers_to_predict(classes: int, dtype, tmp_path: Path) -> None:
    """Bug 8: one-hot rows with more classes than half the images became regression."""
    one_hot = np.eye(classes, dtype=dtype)[np.arange(24) % classes]
    message = rejection(save(tmp_path, x=gray_noise(24), y=one_hot))
    assert message.startswith("DIR/pets.npz: ")
    assert "y.argmax(axis=1)" in message


def test_more_channels_than_image_files_have_are_resized(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 5), np.uint8)
    path = save(tmp_path, x=pixels, y=np.arange(30) % 2)
    assert load_data(path).train.shape == (5, 6, 6)
    assert load_data(path, Preparation(size_px=3)).train.shape == (5, 3, 3)


def write_members(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "shape", ["(1000000000, 1000, 1000)", "(-1, 4, 5)", "(2, 4, 6)", "(9,) * 9"]
)
def test_a_header_that_lies_is_one_plain_error(shape: str, tmp_path: Path) -> None:
    path = write_members(
        tmp_path / "a.npz", {"x": npy_header(shape) + bytes(40), "y": npy_bytes(CLASSES_OF_2)}
    )
    message = rejection(path)
    assert message.startswith("Cannot read DIR/a.npz: ")


def test_a_bomb_is_rejected(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.FLOOR_BYTES", 2**24)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as file:
            file.write(npy_header("(20, 1024, 1024)"))
            for _ in range(20):
                file.write(bytes(2**20))
        archive.writestr("y.npy", npy_bytes(np.zeros(20, int)))
    message = rejection(tmp_path / "a.npz")
    assert message.startswith("DIR/a.npz is rejected: its files do not fit on the disk, or are")


@given(
    place=st.integers(0, 1300),
    value=st.integers(0, 255),
    cut=st.one_of(st.none(), st.integers(0, 1300)),
)
def test_any_damage_to_an_npz_is_one_plain_error_or_none(
    place: int, value: int, cut: int | None, tmp_path_factory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(save(folder, x=gray_noise(20), y=np.arange(20)).read_bytes())
    data[place % len(data)] = value
    (folder / "pets.npz").write_bytes(data[:cut])
    try:
        source = read_arrays(folder / "pets.npz")
    except DataError:
        return
    assert source.pixels.shape == (20, 4, 5, 1)


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    path = save(tmp_path, x=gray_noise(2), y=CLASSES_OF_2)
    before = read_arrays(path).digest
    assert read_arrays(path).digest == before
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert read_arrays(path).digest != before


def test_another_task_than_that_of_a_built_in_set_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        load_data("shapes", Preparation(task="regression", size_px=4))
    assert (
        str(raised.value)
        == "The task is regression, but the targets are single-label, 10 classes, from the"
        " built-in set. Leave out --task (in Python, task)."
    )
