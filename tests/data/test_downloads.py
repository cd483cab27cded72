"""Downloads are announced and checked, from a server that stands in for the real ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from lamina.data import find_default_data, load_data
from lamina.errors import DataError, LaminaWarning


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """A test's log is its failures."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
    urllib.request.install_opener(None)


def md5_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def served_cifar10(server: tuple[Path, str], batches, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, address = server
    monkeypatch.delenv("LAMINA_CIFAR10", raising=False)
    archive = batches.write_archive(folder / "cifar-10-python.tar.gz")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", address + archive.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5_of(archive.read_bytes()))
    return archive


def test_cifar10_is_downloaded_once_and_announced(served_cifar10: Path, batches) -> None:
    with pytest.warns(LaminaWarning, match=r"^Downloading cifar10 \(170 MB\) from www\.cs\.toronto\.edu\.$"):
        assert find_default_data() == ("cifar10", "downloaded just now")
    served_cifar10.unlink()

    np.testing.assert_array_equal(load_data("cifar10").test.pixels, batches.test)
    assert find_default_data()[1].startswith("downloaded before, in ")


@pytest.mark.filterwarnings("ignore:Downloading")
def test_a_download_with_a_wrong_checksum_is_not_kept(served_cifar10: Path, cache: Path) -> None:
    served_cifar10.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"^cifar10 could not be downloaded from .*: File not found or corrupted\.\. "):
        load_data("cifar10")
    assert sorted(path.name for path in (cache / "downloads").iterdir()) == ["cifar10.lock"]


def idx(values: np.ndarray) -> bytes:
    """An array in MNIST's own format (LeCun, "The MNIST database"): magic number, sizes, bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


@pytest.mark.filterwarnings("ignore:Downloading", "ignore:.* train has no pictures of")
@pytest.mark.parametrize(
    ("name", "kind", "first"), [("mnist", "MNIST", "0 - zero"), ("fashion-mnist", "FashionMNIST", "T-shirt/top")]
)
def test_grey_sets_are_read(
    name: str, kind: str, first: str, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    random = np.random.default_rng(0)
    pixels = {"train": random.integers(0, 256, (6, 28, 28)), "t10k": random.integers(0, 256, (3, 28, 28))}
    targets = {"train": np.arange(6) % 3, "t10k": np.arange(3)}
    resources = []
    for part in ("train", "t10k"):
        for file, values in (("images-idx3", pixels[part]), ("labels-idx1", targets[part])):
            path = folder / f"{part}-{file}-ubyte.gz"
            path.write_bytes(idx(values))
            resources.append((path.name, md5_of(path.read_bytes())))
    official = getattr(torchvision.datasets, kind)
    monkeypatch.setattr(official, "mirrors", [address])
    monkeypatch.setattr(official, "resources", resources)

    data = load_data(name)

    np.testing.assert_array_equal(data.train.pixels, pixels["train"][..., None])
    np.testing.assert_array_equal(data.test.targets, targets["t10k"])
    assert data.train.shape == (1, 28, 28)
    assert data.train.target_names[0] == first
    for path in folder.iterdir():
        path.unlink()
    assert load_data(name).fingerprint == data.fingerprint
    assert load_data(name).test.names == ("test/00000", "test/00001", "test/00002")
