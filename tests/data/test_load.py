"""Names, paths and what is taken where none is given."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.data import NAMES, Preparation, find_default_data, load_data
from lamina.errors import DataError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network that refuses at once: nothing listens at the proxy's port."""
    monkeypatch.delenv("LAMINA_CIFAR10", raising=False)
    proxy = urllib.request.ProxyHandler({"http": "http://127.0.0.1:9", "https": "http://127.0.0.1:9"})
    urllib.request.install_opener(urllib.request.build_opener(proxy))
    yield
    urllib.request.install_opener(None)


REFUSED = f"<urlopen error [Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}>"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shaps", "there is no data set named shaps, and no file or folder of that path. Did you mean shapes?"),
        (
            "zebras",
            "there is no data set named zebras, and no file or folder of that path. Choose from: cifar10, cifar100, "
            "mnist, fashion-mnist, svhn, shapes, shapes-attributes, shapes-pose.",
        ),
        ("no/such", "there is no data set named no/such, and no file or folder of that path. Check the path."),
        ("set.zip", "there is no data set named set.zip, and no file or folder of that path. Check the path."),
        (Path("shapes"), "there is no data set named shapes, and no file or folder of that path. Check the path."),
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


def test_cifar10_that_was_decoded_before_needs_its_source_no_more(
    pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    monkeypatch.setenv("LAMINA_CIFAR10", str(pictures.write_zip(tmp_path / "set.zip")))
    before = load_data("cifar10")
    monkeypatch.delenv("LAMINA_CIFAR10")
    source, reason = find_default_data()
    assert (source, reason.split(" in ")[0]) == ("cifar10", "decoded before,")
    assert load_data("cifar10").fingerprint == before.fingerprint


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
        f"{REFUSED}. Connect to the network and try again. Or set LAMINA_CIFAR10 to a copy.",
    )


def test_names_are_those_that_are_loaded() -> None:
    assert NAMES == (
        "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", "shapes", "shapes-attributes", "shapes-pose",
    )  # fmt: skip


def test_importing_the_data_loads_no_torch() -> None:
    code = "import sys, lamina.data; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
