"""Arrays of images: what is made of them, and what is said of those that are wrong."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import DataError
from support import forking
from support.array_files import gray_noise, read_arrays
from support.table_sources import ARRAY_SOURCES, CLASSES, arrays_of

LAYOUT = "Expected x_train and y_train, train_images and train_labels, or images and targets."


def save(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "pets.npz", **arrays)
    return tmp_path / "pets.npz"


def rejection(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_arrays(path)
    return str(raised.value).replace(str(path.parent), "DIR")


@pytest.mark.parametrize("form", ARRAY_SOURCES)
def test_every_layout_gives_the_same_images_and_classes(
    form: str, image_set, tmp_path: Path
) -> None:
    path = ARRAY_SOURCES[form](image_set, tmp_path)
    source = read_arrays(path)
    parts = {split: arrays_of(image_set, split) for split in ("train", "val", "test")}
    np.testing.assert_array_equal(
        source.pixels, np.concatenate([pixels for pixels, _ in parts.values()])
    )
    np.testing.assert_array_equal(
        source.targets, np.concatenate([targets for _, targets in parts.values()])
    )
    assert source.splits == [split for split, (pixels, _) in parts.items() for _ in pixels]
    assert source.target_names == CLASSES
    assert (source.names[0], source.names[-1]) == ("train/00000", "test/00005")


@pytest.mark.parametrize(
    "keys", [("images", "targets"), ("x", "y"), ("X", "y"), ("data", "labels"), ("pixels", "label")]
)
def test_one_pair_of_arrays_has_no_split(keys: tuple[str, str], tmp_path: Path) -> None:
    path = save(tmp_path, **{keys[0]: gray_noise(3), keys[1]: np.array([4, 0, 2])})
    source = read_arrays(path)
    np.testing.assert_array_equal(source.pixels[..., 0], gray_noise(3))
    assert source.targets.tolist() == [[4.0], [0.0], [2.0]]
    assert source.splits == [None, None, None]
    assert source.names == ["00000", "00001", "00002"]
    assert source.target_names == ("label",)
    assert source.target_reason.endswith(f", from array {keys[1]}")


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        (np.array([True, False]), ("label",), [True, False]),
        (np.array(["cat", "dog"]), ("cat", "dog"), [0, 1]),
        (np.array([b"cat", b"dog"]), ("cat", "dog"), [0, 1]),
        (np.array([0.5, 0.25]), ("label",), [[0.5], [0.25]]),
        (np.array([[7], [8]], np.uint8), ("7", "8"), [0, 1]),
        (np.array([[0, 1, 0], [1, 0, 0]], np.float32), ("0", "1"), [1, 0]),
        (
            np.array([[0, 1, 1], [1, 0, 0]]),
            ("label_0", "label_1", "label_2"),
            [[False, True, True], [True, False, False]],
        ),
        (np.array([[0.5, 2], [1, 3]]), ("label_0", "label_1"), [[0.5, 2], [1, 3]]),
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


def test_a_missing_number_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, images=gray_noise(2), labels=np.array([0.5, np.nan]))
    assert rejection(path).startswith("Expected numbers in column 'label', got None.")


def test_names_of_several_columns_name_them(tmp_path: Path) -> None:
    labels = np.array([[0, 0], [1, 1]])
    source = read_arrays(
        save(tmp_path, x=gray_noise(2), y=labels, class_names=np.array(["big", "red"]))
    )
    assert source.targets.tolist() == [[False, False], [True, True]]
    assert source.target_names == ("big", "red")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([0, 1, 254, 255], np.int64), [0, 1, 254, 255]),
        (np.array([0, 1, 254, 255], np.float64), [0, 1, 254, 255]),
        (np.array([0, 0.5, 0.998, 1], np.float32), [0, 128, 254, 255]),
        (np.array([False, True, True, False]), [0, 255, 255, 0]),
    ],
)
def test_other_types_of_pixels_become_bytes(
    pixels: np.ndarray, expected: list[int], tmp_path: Path
) -> None:
    source = read_arrays(save(tmp_path, x=np.stack([pixels.reshape(2, 2)] * 2), y=np.array([0, 1])))
    assert source.pixels[1, ..., 0].ravel().tolist() == expected


@given(
    shape=st.sampled_from([(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3), (2, 1, 4, 5), (2, 3, 4, 5)]),
    order=st.sampled_from("CF"),
)
def test_channels_go_last_in_whatever_order_they_are_stored(
    shape, order: str, tmp_path_factory
) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = save(
        tmp_path_factory.getbasetemp(), x=np.asarray(pixels, order=order), y=np.array([0, 1])
    )
    expected = pixels.reshape(2, -1, 4, 5).transpose(0, 2, 3, 1) if shape[-1] == 5 else pixels
    np.testing.assert_array_equal(read_arrays(path).pixels, expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": gray_noise(2), "b": np.zeros(2)}, f"DIR/pets.npz has the arrays a, b. {LAYOUT}"),
        (
            {"x_train": gray_noise(2), "z": np.zeros(2)},
            f"DIR/pets.npz has no labels for x_train among x_train, z. {LAYOUT}",
        ),
        (
            {"x": gray_noise(3), "y": np.zeros(2)},
            (
                "DIR/pets.npz has 3 images, but labels of shape (2,); expected one label, or one"
                " row of labels, per image. Save them again."
            ),
        ),
        (
            {"x_test": gray_noise(3), "y_test": np.zeros((3, 2, 2))},
            (
                "DIR/pets.npz has 3 images in test, but labels of shape (3, 2, 2); expected one"
                " label, or one row of labels, per image. Save them again."
            ),
        ),
        (
            {"x": gray_noise(2), "y": np.array(["a", {}], object)},
            (
                "Array y of DIR/pets.npz contains Python objects; expected numbers or text. Convert"
                " it and save the file again."
            ),
        ),
        (
            {"x": gray_noise(2), "y": np.array([0, 1], "M8[D]")},
            (
                "Array y of DIR/pets.npz contains values of type datetime64[D]; expected numbers or"
                " text. Convert it and save the file again."
            ),
        ),
        (
            {"x": np.array([[["a"]]]), "y": np.zeros(1)},
            (
                "The images in DIR/pets.npz have dtype <U1; expected numbers from 0 to 255 or from"
                " 0 to 1. Convert them and save the file again."
            ),
        ),
        (
            {"x": gray_noise(2).reshape(2, -1), "y": np.zeros(2)},
            (
                "The images in DIR/pets.npz have shape (2, 20); expected (N, H, W), (N, H, W, C) or"
                " (N, C, H, W) with 1 or 3 channels C. Reshape them and save the file again."
            ),
        ),
        (
            {"x": gray_noise(2).reshape(2, 5, 2, 2), "y": np.zeros(2)},
            (
                "The images in DIR/pets.npz have shape (2, 5, 2, 2); expected (N, H, W), (N, H, W,"
                " C) or (N, C, H, W) with 1 or 3 channels C. Reshape them and save the file again."
            ),
        ),
        (
            {"x": np.zeros((2, 3, 9, 3)), "y": np.zeros(2)},
            (
                "The images in DIR/pets.npz have shape (2, 3, 9, 3), so the channels may be the"
                " second or the last axis. Save gray images as (N, H, W), others with a larger"
                " height and width."
            ),
        ),
        (
            {"x": np.zeros((0, 3, 9)), "y": np.zeros(0)},
            (
                "The images in DIR/pets.npz have shape (0, 3, 9); expected (N, H, W), (N, H, W, C)"
                " or (N, C, H, W) with 1 or 3 channels C. Reshape them and save the file again."
            ),
        ),
        (
            {"x": np.linspace(-1, 1, 40).reshape(2, 4, 5), "y": np.zeros(2)},
            "x of DIR/pets.npz has values from -1 to 1: scale them to 0 to 255.",
        ),
        (
            {"x": np.full((2, 3, 3), 256), "y": np.zeros(2)},
            "x of DIR/pets.npz has values from 256 to 256: scale them to 0 to 255.",
        ),
        (
            {"x": np.full((2, 3, 3), np.nan), "y": np.zeros(2)},
            "x of DIR/pets.npz contains NaN or infinity: correct these values.",
        ),
        (
            {"x_train": np.linspace(0, 1.0001, 40).reshape(2, 4, 5), "y_train": np.zeros(2)},
            (
                "x_train of DIR/pets.npz has fractions up to 1.0001, so the range may be 0 to 1 or"
                " 0 to 255: scale them to one of these."
            ),
        ),
        (
            {"x": np.linspace(0, 1.275, 40).reshape(2, 4, 5), "y": np.zeros(2)},
            (
                "x of DIR/pets.npz has fractions up to 1.275, so the range may be 0 to 1 or 0 to"
                " 255: scale them to one of these."
            ),
        ),
        (
            {
                "x_train": gray_noise(2),
                "y_train": np.zeros(2),
                "x_test": gray_noise(2, 6),
                "y_test": np.zeros(2),
            },
            (
                "The splits of DIR/pets.npz have images of different sizes: train 4 x 5 x 1, test 6"
                " x 5 x 1. Resize them to one size."
            ),
        ),
        (
            {
                "x_train": gray_noise(2),
                "y_train": np.zeros(2),
                "x_test": gray_noise(2),
                "y_test": np.zeros((2, 2)),
            },
            (
                "The splits of DIR/pets.npz have different numbers of labels per image. Save the"
                " same label columns in all."
            ),
        ),
        (
            {"x": gray_noise(2), "y": np.array([0, 2]), "class_names": np.array(["a", "b"])},
            (
                "DIR/pets.npz has the label 2, but names only 2 classes, 0 to 1. Correct the labels"
                " or the names, and create the file again."
            ),
        ),
    ],
)
def test_arrays_that_cannot_be_used_say_what_to_do(arrays, message: str, tmp_path: Path) -> None:
    assert rejection(save(tmp_path, **arrays)) == message


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
    "shape", ["(1000000000, 1000, 1000)", "(-1, 4, 5)", "(2, 4, 6)", "(2, 4, 4)", "(9,) * 9"]
)
def test_a_header_that_lies_makes_no_room(shape: str, tmp_path: Path) -> None:
    path = write_members(
        tmp_path / "a.npz", {"x": npy_header(shape) + bytes(40), "y": npy_bytes(np.zeros(2))}
    )
    tracemalloc.start()
    message = rejection(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith(("Array x of DIR/a.npz should have", "Cannot read DIR/a.npz: "))
    assert message.endswith("Create or download it again.")
    assert peak_bytes < 2**20


@pytest.mark.slow
def test_a_bomb_is_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as file:
            file.write(npy_header("(300, 1024, 1024)"))
            for _ in range(300):
                file.write(bytes(2**20))
        archive.writestr("y.npy", npy_bytes(np.zeros(300)))
    assert (
        rejection(tmp_path / "a.npz")
        == "Array x of DIR/a.npz is compressed more than 200:1. Save it with np.savez."
    )


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
    path = save(tmp_path, x=gray_noise(2), y=np.zeros(2))
    before = read_arrays(path).digest
    assert read_arrays(path).digest == before
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert read_arrays(path).digest != before


MEASURE = """
import resource, sys
from lamina.data import load_data
load_data(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = load_data(sys.argv[2])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(sum(map(len, data.splits.values())), grown)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_does_not_grow_with_an_npz(dtype: str, tmp_path: Path) -> None:
    """150 MB of images are read in blocks: the peak is a fraction of them."""
    count = 1500 if dtype == "uint8" else 400
    block = (np.random.default_rng(0).random((100, 182, 182, 3)) * 255).astype(dtype)
    for name, repeats in (("warm", 1), ("large", count // 100)):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            with archive.open("x.npy", "w", force_zip64=True) as file:
                shape = (100 * repeats, *block.shape[1:])
                np.lib.format.write_array_header_1_0(
                    file, {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                )
                for number in range(repeats):
                    block[:, 0, 0, 0] = number % 256
                    file.write(block.data)
            archive.writestr("y.npy", npy_bytes(np.arange(100 * repeats) % 10))
    done = forking.run("warm.npz", "large.npz", code=MEASURE, cwd=tmp_path)
    images, growth_kib = map(int, done.stdout.split())
    assert images == count
    assert growth_kib < 40_000
