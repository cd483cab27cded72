"""Names, paths and what is taken where none is given."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from table_sources import ARRAY_SOURCES

from lamina.data import NAMES, Preparation, find_default_data, load_data
from lamina.errors import DataError


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
        ("shaps", "There is no data set named shaps, and no file or folder of that path. Did you mean shapes?"),
        (
            "zebras",
            "There is no data set named zebras, and no file or folder of that path. Choose from: cifar10, cifar100, "
            "mnist, fashion-mnist, shapes, shapes-attributes, shapes-pose.",
        ),
        ("no/such", "There is no data set named no/such, and no file or folder of that path. Check the path."),
        ("set.zip", "There is no data set named set.zip, and no file or folder of that path. Check the path."),
        (Path("shapes"), "There is no data set named shapes, and no file or folder of that path. Check the path."),
    ],
)
def test_an_unknown_source_says_what_to_do(
    source: str | Path, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as raised:
        load_data(source)
    assert str(raised.value) == message


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(DataError) as raised:
        load_data("shapes", Preparation(size_px=0))
    assert str(raised.value) == "size_px must be a whole number of at least 1, got 0."


@pytest.mark.parametrize("form", ["folder", "zip", "official"])
def test_cifar10_is_where_the_variable_points(
    form: str, pictures, batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {
        "folder": lambda: pictures.write_folder(tmp_path / "set"),
        "zip": lambda: pictures.write_zip(tmp_path / "set.zip"),
        "official": lambda: batches.write_archive(tmp_path / "cifar-10-python.tar.gz"),
    }[form]()
    monkeypatch.setenv("LAMINA_CIFAR10", str(path))

    assert find_default_data() == ("cifar10", f"LAMINA_CIFAR10 is {path}")
    data = load_data("cifar10")
    assert data.name == "cifar10"
    assert len(data.train) == (50 if form == "official" else 12)


@pytest.mark.filterwarnings("ignore:Downloading cifar10")
def test_cifar10_means_the_set_once_the_variable_is_gone(
    pictures, batches, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    """Bug 2: the name gave whatever LAMINA_CIFAR10 once pointed at."""
    path = pictures.write_zip(tmp_path / "set.zip")
    monkeypatch.setenv("LAMINA_CIFAR10", str(path))
    assert len(load_data("cifar10").train) == 12
    monkeypatch.delenv("LAMINA_CIFAR10")
    path.unlink()
    assert find_default_data()[0] == "shapes"
    with pytest.raises(DataError, match=r"^cifar10 could not be downloaded"):
        load_data("cifar10")
    (cache / "downloads").mkdir(exist_ok=True)
    batches.write_archive(cache / "downloads" / "cifar-10-python.tar.gz")
    assert len(load_data("cifar10").train) == 50


def test_a_path_named_like_a_set_is_a_path(pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.write_folder(tmp_path / "mnist")
    assert load_data("./mnist").source == str(tmp_path / "mnist")


# A run knows its data by these: another value makes every run that was trained on them strange to its pictures.
FINGERPRINTS = {
    "folder": "a8c76835a90107247c63ef78e8974e43",
    "npz": "05e769dc2c0f3a8686fcc0547f9dc51e",
    "shapes": "9bfb5fa852c81e048d940e94894dc085",
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FINGERPRINTS)
def test_fingerprints_stay_the_same(form: str, pictures, tmp_path: Path) -> None:
    """Bug 8: they held the text of the whole preparation, whose fields change from version to version."""
    source = {
        "folder": lambda: pictures.write_folder(tmp_path / "pets"),
        "npz": lambda: ARRAY_SOURCES["npz of keras"](pictures, tmp_path),
        "shapes": lambda: "shapes",
    }[form]()
    assert load_data(source).fingerprint == FINGERPRINTS[form]
    if form != "shapes":
        alike = Preparation(task="single-label", label_from="parent", split_seed=7, resize="pad")
        assert load_data(source, alike).fingerprint == FINGERPRINTS[form]
    for other in (Preparation(size_px=7), Preparation(val_fraction=0.2), Preparation(val_fraction=0.2, split_seed=1)):
        if form == "shapes" or other.size_px:
            assert load_data(source, other).fingerprint != FINGERPRINTS[form]


def test_a_variable_that_points_nowhere_is_an_error_not_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_CIFAR10", "/no/such/file")
    assert find_default_data()[0] == "cifar10"
    with pytest.raises(DataError) as raised:
        load_data("cifar10")
    assert str(raised.value) == (
        "LAMINA_CIFAR10 is /no/such/file, and there is no such file or folder. Correct or unset it."
    )


@pytest.mark.filterwarnings("ignore:Downloading cifar10")
def test_without_a_network_cifar10_is_an_error_that_says_what_to_do(offline: None) -> None:
    with pytest.raises(DataError) as raised:
        load_data("cifar10")
    assert str(raised.value) == (
        f"cifar10 could not be downloaded from www.cs.toronto.edu: {REFUSED}. Connect to the network and try again. "
        "Or set LAMINA_CIFAR10 to a copy: the official cifar-10-python.tar.gz, its folder cifar-10-batches-py, "
        "or a zip or folder of class folders."
    )


@pytest.mark.filterwarnings("ignore:Downloading cifar10")
def test_without_a_network_the_default_is_shapes_and_the_reason_is_given(offline: None) -> None:
    assert find_default_data() == (
        "shapes",
        "the built-in set, because cifar10 could not be downloaded from www.cs.toronto.edu: "
        f"{REFUSED}. Connect to the network and try again. Or set LAMINA_CIFAR10 to a copy: the official "
        "cifar-10-python.tar.gz, its folder cifar-10-batches-py, or a zip or folder of class folders.",
    )


def test_names_are_those_that_are_loaded() -> None:
    assert NAMES == (
        "cifar10", "cifar100", "mnist", "fashion-mnist", "shapes", "shapes-attributes", "shapes-pose",
    )  # fmt: skip


def test_importing_the_data_loads_no_torch() -> None:
    code = "import sys, lamina.data; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
