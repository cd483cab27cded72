"""Downloads are announced and checked, from a server that stands in for the real ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lamina.data import Preparation, find_default_data, load_data
from lamina.data.load import find_prepared
from lamina.data.sources import published
from lamina.errors import DataError, LaminaWarning
from support.table_sources import idx_bytes


class Server(ThreadingHTTPServer):
    """Serves a folder; of the files in ``cut`` it sends half, and then hangs up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.folder, self.cut, self.asked = folder, set[str](), list[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: object) -> None:
        """A test's log is its failures."""

    def copyfile(self, source, outputfile) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        data = source.read()
        outputfile.write(data[: len(data) // 2] if name in self.server.cut else data)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.delenv("LAMINA_CIFAR10", raising=False)
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, name: str, address: str, files: list[Path]) -> None:
    """Let a set be these files at that address."""
    digests = {
        file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files
    }
    served = published.PUBLISHED[name]._replace(url=address, files=digests)
    monkeypatch.setitem(published.PUBLISHED, name, served)


@pytest.fixture
def served_cifar10(mirror: Server, batches, monkeypatch: pytest.MonkeyPatch) -> Path:
    archive = batches.write_archive(mirror.folder / "cifar-10-binary.tar.gz")
    publish(monkeypatch, "cifar10", mirror.address, [archive])
    return archive


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_cifar10_is_downloaded_once_and_announced(
    served_cifar10: Path, batches, cache: Path, capfd
) -> None:
    with pytest.warns(LaminaWarning, match=r"^Downloading cifar10 \(170 MB\) from 127\.0\.0\.1\.$"):
        assert find_default_data() == ("cifar10", "downloaded just now")
    served_cifar10.unlink()

    data = load_data("cifar10")
    np.testing.assert_array_equal(data.test.pixels, batches.test)
    assert find_default_data()[1].startswith("already downloaded to ")
    (cache / "downloads" / served_cifar10.name).unlink()
    prepared = find_prepared("cifar10", Preparation(), data.fingerprint)
    assert prepared is not None
    assert load_data("cifar10").fingerprint == prepared.fingerprint == data.fingerprint
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Downloading")
def test_a_download_with_a_wrong_digest_is_not_kept(served_cifar10: Path, cache: Path) -> None:
    served_cifar10.write_bytes(b"something else")
    with pytest.raises(DataError) as raised:
        load_data("cifar10")
    assert str(raised.value).startswith(
        "cifar10 could not be downloaded from 127.0.0.1: SHA256 hash of downloaded file"
    )
    assert "Or set LAMINA_CIFAR10 to the path of a copy" in str(raised.value)
    assert names_in(cache / "downloads") == ["cifar10.lock"]


@pytest.mark.filterwarnings("ignore:Downloading")
def test_a_connection_that_breaks_can_be_tried_again(
    served_cifar10: Path, mirror: Server, cache: Path, batches
) -> None:
    mirror.cut.add(served_cifar10.name)
    with pytest.raises(
        DataError, match=r"^cifar10 could not be downloaded from 127\.0\.0\.1: IncompleteRead\("
    ):
        load_data("cifar10")
    assert names_in(cache / "downloads") == ["cifar10.lock"]

    mirror.cut.clear()
    assert len(load_data("cifar10").train) == 50


def test_a_failed_download_of_the_default_data_is_tried_once(
    served_cifar10: Path, mirror: Server
) -> None:
    mirror.cut.add(served_cifar10.name)
    with pytest.warns(LaminaWarning, match="^Downloading cifar10") as warned:
        first = find_default_data()
        assert find_default_data() == first
    assert first[1].startswith(
        "the built-in set, because cifar10 could not be downloaded from 127.0.0.1: "
    )
    assert [one.category for one in warned].count(LaminaWarning) == 1


def test_offline_nothing_is_asked_of_the_network(
    served_cifar10: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMINA_OFFLINE", "1")
    reason = (
        "cifar10 is not downloaded yet, and LAMINA_OFFLINE forbids downloads. Unset it. Or set"
        " LAMINA_CIFAR10"
    )
    with pytest.raises(DataError, match=f"^{reason}"):
        load_data("cifar10")
    with pytest.raises(DataError, match=r"^mnist is not downloaded yet"):
        load_data("mnist")
    assert find_default_data()[1].startswith(f"the built-in set, because {reason}")
    monkeypatch.setenv("LAMINA_OFFLINE", "0")
    with pytest.warns(LaminaWarning, match="^Downloading cifar10"):
        assert find_default_data() == ("cifar10", "downloaded just now")


@pytest.mark.filterwarnings("ignore:Downloading")
def test_a_server_that_never_responds_times_out(
    monkeypatch: pytest.MonkeyPatch, cache: Path, batches, tmp_path
) -> None:
    monkeypatch.delenv("LAMINA_CIFAR10", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.setattr(published, "NETWORK_TIMEOUT_SECONDS", 0.1)
    archive = batches.write_archive(tmp_path / "cifar-10-binary.tar.gz")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publish(monkeypatch, "cifar10", f"http://127.0.0.1:{silent.getsockname()[1]}/", [archive])
        with pytest.raises(
            DataError, match=r"^cifar10 could not be downloaded from 127\.0\.0\.1: timed out\. "
        ):
            load_data("cifar10")
    assert names_in(cache / "downloads") == ["cifar10.lock"]


@pytest.mark.filterwarnings("ignore:Downloading")
def test_a_file_that_is_gone_is_named(served_cifar10: Path) -> None:
    served_cifar10.unlink()
    with pytest.raises(
        DataError, match=r"404 Client Error: File not found for url: http://.*/cifar-10-binary"
    ):
        load_data("cifar10")


def serve_grey(mirror: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Serve a small set in MNIST's files; gives the arrays in them."""
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3": random.integers(0, 256, (6, 28, 28)),
        "train-labels-idx1": np.arange(6) % 3,
        "t10k-images-idx3": random.integers(0, 256, (3, 28, 28)),
        "t10k-labels-idx1": np.arange(3),
    }
    files = [mirror.folder / f"{file}-ubyte.gz" for file in arrays]
    for file, values in zip(files, arrays.values(), strict=True):
        file.write_bytes(gzip.compress(idx_bytes(values)))
    publish(monkeypatch, name, mirror.address, files)
    return arrays


# As torchvision's reader had them, which lamina used before.
FINGERPRINTS = {
    "mnist": "365538b9b6ba37dd26400801ad57cbd9",
    "fashion-mnist": "f121285aeac755b9cff029f1cc7d1ff0",
}


@pytest.mark.filterwarnings("ignore:Downloading", "ignore:.* train has no images of")
@pytest.mark.parametrize(
    ("name", "first"), [("mnist", "0 - zero"), ("fashion-mnist", "T-shirt/top")]
)
def test_grey_sets_are_read(
    name: str, first: str, mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = serve_grey(mirror, name, monkeypatch)

    data = load_data(name)

    np.testing.assert_array_equal(data.train.pixels, arrays["train-images-idx3"][..., None])
    np.testing.assert_array_equal(data.test.targets, arrays["t10k-labels-idx1"])
    assert data.train.shape == (1, 28, 28)
    assert data.train.target_names[0] == first
    assert data.fingerprint == FINGERPRINTS[name]
    assert len(mirror.asked) == 4
    assert load_data(name).fingerprint == data.fingerprint
    assert load_data(name).test.names == ("test/00000", "test/00001", "test/00002")
    assert len(mirror.asked) == 4


@pytest.mark.filterwarnings("ignore:Downloading", "ignore:.* train has no images of")
def test_of_several_files_none_is_kept_if_one_fails(
    mirror: Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    serve_grey(mirror, "mnist", monkeypatch)
    mirror.cut.add("t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"^mnist could not be downloaded from 127\.0\.0\.1: "):
        load_data("mnist")
    assert names_in(cache / "downloads") == ["mnist.lock"]
