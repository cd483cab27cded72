"""The published sets that torchvision knows how to download, with its checksums; each download is announced first."""

from __future__ import annotations

import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lamina.data.cache import cache_folder, lock_or_wait
from lamina.data.images import Images, Split
from lamina.data.sources.listing import Source, list_images
from lamina.errors import DataError, LaminaWarning

# Where each set comes from, and its size in MB.
SOURCES = {
    "cifar10": ("www.cs.toronto.edu", 170),
    "cifar100": ("www.cs.toronto.edu", 169),
    "mnist": ("ossci-datasets.s3.amazonaws.com", 12),
    "fashion-mnist": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com", 31),
    "svhn": ("ufldl.stanford.edu", 246),
}
NETWORK_TIMEOUT_SECONDS = 10.0


def downloaded_archive(name: str) -> Path:
    """Where the official archive of ``cifar10`` or ``cifar100`` lies once it has been downloaded."""
    return cache_folder() / "downloads" / f"{name.replace('cifar', 'cifar-')}-python.tar.gz"


def download_archive(name: str) -> Path:
    """The official archive of ``cifar10`` or ``cifar100``, downloaded and checked unless it is there.

    Raises:
        DataError: it could not be downloaded, or its checksum is wrong.
    """
    archive = downloaded_archive(name)
    if archive.exists():
        return archive
    with _downloading(name) as folder:
        if archive.exists():  # by another process, meanwhile
            return archive
        from torchvision.datasets import CIFAR10, CIFAR100
        from torchvision.datasets.utils import download_url

        official = CIFAR10 if name == "cifar10" else CIFAR100
        download_url(official.url, folder, archive.name, official.tgz_md5)
        (folder / archive.name).replace(archive)
    return archive


def open_download(name: str) -> Source:
    """``mnist``, ``fashion-mnist`` or ``svhn``; reading it downloads it, and raises DataError where that fails."""
    return Source(name, lambda *_: list_images(_download_images(name), "the published set"))


def _download_images(name: str) -> dict[Split, Images]:
    splits: tuple[Split, Split] = ("train", "test")
    images: dict[Split, Images] = {}
    with _downloading(name) as folder:
        from torchvision.datasets import MNIST, SVHN, FashionMNIST

        for split in splits:
            if name == "svhn":
                digits = SVHN(folder, split, download=True)
                pixels, targets, classes = digits.data.transpose(0, 2, 3, 1), digits.labels, list("0123456789")
            else:
                grey = (MNIST if name == "mnist" else FashionMNIST)(folder, train=split == "train", download=True)
                pixels, targets, classes = grey.data.numpy()[..., None], grey.targets.numpy(), grey.classes
            names = tuple(f"{split}/{row:05d}" for row in range(len(pixels)))
            images[split] = Images(pixels, targets.astype(np.int64), tuple(classes), names, split)
    return images


@contextmanager
def _downloading(name: str) -> Iterator[Path]:
    """An empty folder to download to; whatever stops the download becomes one plain message."""
    host, size_mb = SOURCES[name]
    folder = cache_folder() / "downloads"
    # torchvision's downloads take no timeout, and a network that never answers would hold them for minutes.
    timeout_before = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_or_wait(folder / f"{name}.lock", name), tempfile.TemporaryDirectory(dir=folder) as beside:
            warnings.warn(f"Downloading {name} ({size_mb} MB) from {host}.", LaminaWarning, stacklevel=4)
            socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)
            yield Path(beside)
    except ImportError as error:
        raise DataError(f"{name} needs {error.name} to be read: pip install {error.name}.") from error
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise DataError(
            f"{name} could not be downloaded from {host}: {reason}. Connect to the network and try again."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_before)
