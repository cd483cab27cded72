"""Names, paths and what is taken where none is given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lamina.data import Images, Preparation, find_default_data, load_data
from lamina.errors import DataError, LaminaWarning
from support.table_sources import ARRAY_SOURCES


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that refuses at once: nothing listens at the proxy's port."""
    monkeypatch.delenv("LAMINA_CIFAR10", raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


REFUSED = os.strerror(errno.ECONNREFUSED)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shaps", "No data set, file or folder named shaps. Did you mean shapes?"),
        ("photo", "No data set, file or folder named photo. Did you mean photos?"),
        (
            "zebras",
            (
                "No data set, file or folder named zebras. Choose from: cifar10, cifar100, mnist,"
                " fashion-mnist, shapes, shapes-attributes, shapes-pose."
            ),
        ),
        ("no/such", "No data set, file or folder named no/such. Check the path."),
        ("set.zip", "No data set, file or folder named set.zip. Check the path."),
        (Path("shapes"), "No data set, file or folder named shapes. Check the path."),
    ],
)
def test_an_unknown_source_says_what_to_do(
    source: str | Path, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError) as raised:
        load_data(source)
    assert str(raised.value) == message


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        load_data("shapes", Preparation(size_px=0))
    assert str(raised.value) == "size_px must be a whole number of at least 1, got 0."


@pytest.mark.parametrize("form", ["folder", "zip", "official"])
def test_cifar10_is_where_the_variable_points(
    form: str, image_set, batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {
        "folder": lambda: image_set.write_folder(tmp_path / "set"),
        "zip": lambda: image_set.write_zip(tmp_path / "set.zip"),
        "official": lambda: batches.write_archive(tmp_path / "cifar-10-binary.tar.gz"),
    }[form]()
    monkeypatch.setenv("LAMINA_CIFAR10", str(path))

    assert find_default_data() == ("cifar10", f"LAMINA_CIFAR10 is {path}")
    data = load_data("cifar10")
    assert data.name == "cifar10"
    assert len(data.train) == (50 if form == "official" else 12)


@pytest.mark.filterwarnings("ignore:Downloading cifar10")
def test_cifar10_means_the_set_once_the_variable_is_gone(
    image_set, batches, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    """Bug 2: the name gave whatever LAMINA_CIFAR10 once pointed at."""
    path = image_set.write_zip(tmp_path / "set.zip")
    monkeypatch.setenv("LAMINA_CIFAR10", str(path))
    assert len(load_data("cifar10").train) == 12
    monkeypatch.delenv("LAMINA_CIFAR10")
    path.unlink()
    assert find_default_data()[0] == "shapes"
    with pytest.raises(DataError, match=r"^cifar10 could not be downloaded"):
        load_data("cifar10")
    (cache / "downloads").mkdir(exist_ok=True)
    batches.write_archive(cache / "downloads" / "cifar-10-binary.tar.gz")
    assert len(load_data("cifar10").train) == 50


def test_a_path_named_like_a_set_is_a_path(
    image_set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image_set.write_folder(tmp_path / "mnist")
    assert load_data("./mnist").source == str(tmp_path / "mnist")


# A run knows its data by these: another value makes every run that was trained on them strange to
# its images.
FINGERPRINTS = {
    "folder": "a8c76835a90107247c63ef78e8974e43",
    "npz": "05e769dc2c0f3a8686fcc0547f9dc51e",
}


@pytest.mark.parametrize("form", FINGERPRINTS)
def test_fingerprints_stay_the_same(form: str, image_set, tmp_path: Path) -> None:
    """Bug 8: they covered the whole preparation's text, whose fields differ between versions."""
    source = {
        "folder": lambda: image_set.write_folder(tmp_path / "pets"),
        "npz": lambda: ARRAY_SOURCES["npz of keras"](image_set, tmp_path),
    }[form]()
    assert load_data(source).fingerprint == FINGERPRINTS[form]
    label_from = "parent" if form == "folder" else None
    alike = Preparation(task="single-label", label_from=label_from, split_seed=7, resize="pad")
    assert load_data(source, alike).fingerprint == FINGERPRINTS[form]
    assert load_data(source, Preparation(size_px=7)).fingerprint != FINGERPRINTS[form]


def test_other_splits_have_another_fingerprint() -> None:
    other = load_data("shapes", Preparation(val_fraction=0.2))
    assert other.fingerprint != load_data("shapes").fingerprint


def test_a_variable_that_points_nowhere_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAMINA_CIFAR10", "/no/such/file")
    assert find_default_data()[0] == "cifar10"
    with pytest.raises(DataError) as raised:
        load_data("cifar10")
    assert (
        str(raised.value)
        == "LAMINA_CIFAR10 is /no/such/file, but no such file or folder exists. Correct or"
        " unset it."
    )


@pytest.mark.filterwarnings("ignore:Downloading cifar10")
def test_without_a_network_the_default_is_shapes(offline: None) -> None:
    assert find_default_data() == (
        "shapes",
        (
            "the built-in set, because cifar10 could not be downloaded from www.cs.toronto.edu:"
            f" {REFUSED}. Check the network connection and try again. Or set LAMINA_CIFAR10 to the"
            " path of a copy: cifar-10-binary.tar.gz, its folder cifar-10-batches-bin, or a zip or"
            " folder of class folders."
        ),
    )


X = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
Y = np.arange(12) % 3


@pytest.mark.parametrize(
    ("x", "y", "advice"),
    [
        (X, Y.astype(float), "For classes, use y.astype(int)"),
        (X, np.eye(3)[Y], "for one-hot rows y.argmax(axis=1)"),
        (X, Y * 5, "Renumber them with _, y = np.unique(y, return_inverse=True)"),
        (X.transpose(0, 3, 1, 2), Y, "Use x.transpose(0, 2, 3, 1)."),
        (X > 128, Y, "Convert values from 0 to 1 with (x * 255.0).round().astype(np.uint8);"),
        (X / 255, Y, "Convert values from 0 to 1 with (x * 255.0).round().astype(np.uint8);"),
    ],
)
def test_the_arrays_of_a_file_follow_the_rules_of_from_arrays(x, y, advice, tmp_path: Path) -> None:
    np.savez(tmp_path / "pets.npz", x=x, y=y)
    with pytest.raises(DataError) as raised:
        load_data(tmp_path / "pets.npz")
    assert advice in str(raised.value)
    with pytest.raises(DataError) as raised_by_arrays:
        Images.from_arrays(x, y)
    assert str(raised.value) == f"{tmp_path / 'pets.npz'}: {raised_by_arrays.value}"


def test_whole_numbers_to_predict_need_the_task(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
    np.savez(tmp_path / "pets.npz", x=x, y=np.arange(60) * 10)
    with pytest.raises(DataError, match="classes must be 0, 1, 2 … without gaps"):
        load_data(tmp_path / "pets.npz")
    data = load_data(tmp_path / "pets.npz", Preparation(task="regression"))
    assert data.train.kind.name == "regression"
    assert data.train.targets.max() > 300


@pytest.mark.parametrize("divisor", [255, 256])
def test_black_images_of_a_file_are_reported(divisor: int, tmp_path: Path) -> None:
    train = (X.astype(int) // divisor).astype(np.uint8)  # the maximum is 1 or 0
    np.savez(tmp_path / "pets.npz", x_train=train, y_train=Y, x_test=X, y_test=Y)
    with pytest.warns(LaminaWarning, match="train has only the pixel values 0 and 1"):
        load_data(tmp_path / "pets.npz")
