"""Published data sets: download them by name, check the digest of each file, and read the files.

CIFAR: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8

from lamina.data.cache import cache_folder, lock_or_wait
from lamina.data.preparation import Preparation
from lamina.data.sources.interface import Arrays, Part, Source, join_parts, mark_state, readable
from lamina.data.splits import Split
from lamina.errors import DataError, warn

NETWORK_TIMEOUT_SECONDS = 10.0
CHUNK_BYTES = 2**20
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
DIGIT_SIDE_PX = 28
# before the values: a mark, then the sizes of the dimensions
IMAGES_HEADER_BYTES = 16
LABELS_HEADER_BYTES = 8
CIFAR_IMAGE_BYTES = 3 * 32 * 32
# By folder: the file of class names, the batches, and the number of labels before each image.
CIFAR10 = ("batches.meta.txt", [f"data_batch_{number}.bin" for number in range(1, 6)], 1)
CIFAR100 = ("fine_label_names.txt", ["train.bin"], 2)
CIFAR_TEST = {"batches.meta.txt": "test_batch.bin", "fine_label_names.txt": "test.bin"}
CIFAR_FOLDERS = {"cifar-10-batches-bin": CIFAR10, "cifar-100-binary": CIFAR100}
PICKLED = ("batches.meta", "cifar-10-batches-py", "cifar-100-python")


class Published(NamedTuple):
    """Where to download the files of a set, and the digest of each."""

    url: str
    size_mb: int
    files: Mapping[str, str]
    classes: tuple[str, ...] = ()
    remedy: str = ""  # without a network


PUBLISHED = {
    "cifar10": Published(
        "https://www.cs.toronto.edu/~kriz/",
        170,
        {
            "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
        },
        remedy=(
            " Or set LAMINA_CIFAR10 to the path of a copy: cifar-10-binary.tar.gz, its folder"
            " cifar-10-batches-bin, or a zip or folder of class folders."
        ),
    ),
    "cifar100": Published(
        "https://www.cs.toronto.edu/~kriz/",
        169,
        {
            "cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8",
        },
    ),
    "mnist": Published(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        12,
        {
            "train-images-idx3-ubyte.gz": (
                "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            "train-labels-idx1-ubyte.gz": (
                "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
        tuple(f"{digit} - {word}" for digit, word in enumerate(DIGITS)),
    ),
    "fashion-mnist": Published(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        31,
        {
            "train-images-idx3-ubyte.gz": (
                "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}


def is_offline() -> bool:
    """Whether ``LAMINA_OFFLINE`` in the environment forbids all downloads."""
    return os.environ.get("LAMINA_OFFLINE", "0") not in ("", "0")


def downloaded_path(name: str) -> Path:
    files = list(PUBLISHED[name].files)
    return cache_folder() / "downloads" / (files[0] if len(files) == 1 else name)


def download(name: str) -> Path:
    """Download a set if needed, and return its path; ``DataError`` for missing or altered files."""
    target = downloaded_path(name)
    published = PUBLISHED[name]
    if target.exists():
        return target
    if is_offline():
        raise DataError(
            f"{name} is not downloaded yet, and LAMINA_OFFLINE forbids downloads. Unset"
            f" it.{published.remedy}"
        )
    host = urlsplit(published.url).hostname
    handled = sys.exception()
    try:
        with lock_or_wait(target.parent / f"{name}.lock", name):
            if target.exists():  # downloaded by another process in the meantime
                return target
            warn(f"Downloading {name} ({published.size_mb} MB) from {host}.", stacklevel=4)
            with tempfile.TemporaryDirectory(dir=target.parent) as beside:
                _fetch(published, Path(beside) if len(published.files) == 1 else Path(beside, name))
                Path(beside, target.name).replace(target)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be downloaded from {host}: {_find_reason(error, handled)}. "
            f"Check the network connection and try again.{published.remedy}"
        ) from error
    return target


def _fetch(published: Published, folder: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # lamina announces its downloads itself
    fetch = pooch.HTTPDownloader(timeout=NETWORK_TIMEOUT_SECONDS, chunk_size=CHUNK_BYTES)
    for file, digest in published.files.items():
        pooch.retrieve(published.url + file, digest, file, folder, downloader=fetch)


def _find_reason(error: BaseException, handled: BaseException | None) -> str:
    """The root cause of an error in requests or urllib3; stops at the earlier ``handled``."""
    while (cause := error.__cause__ or error.__context__) not in (None, handled):
        error = cause
    return getattr(error, "strerror", None) or str(error)


def list_digits(folder: Path, name: str) -> Arrays:
    """List the images in the four files of ``mnist`` or ``fashion-mnist``."""
    classes = PUBLISHED[name].classes
    parts: dict[Split | None, Part] = {}
    with readable(folder):
        for split, (images, labels) in DIGIT_FILES.items():
            pixels = _read_digits(folder / images, IMAGES_HEADER_BYTES)
            targets = _read_digits(folder / labels, LABELS_HEADER_BYTES).astype(np.int64)
            parts[split] = Part(pixels.reshape(-1, DIGIT_SIDE_PX, DIGIT_SIDE_PX, 1), targets)
    return join_parts(folder, parts, "the published set", lambda targets: (targets, classes))


def _read_digits(file: Path, header_bytes: int) -> UInt8[np.ndarray, " values"]:
    with gzip.open(file) as opened:
        return np.frombuffer(opened.read(), np.uint8, offset=header_bytes)


def open_batches(path: Path, _: Preparation) -> Source | None:
    """Open the folder of an unpacked official archive, or its parent."""
    for name, (names, batches, label_count) in CIFAR_FOLDERS.items():
        for folder in (path, path / name):
            if (folder / names).is_file():
                files = [folder / file for file in (names, *batches, CIFAR_TEST[names])]
                read = partial(_list_batches, folder, files, label_count)
                return Source([mark_state(file.stat()) for file in files if file.exists()], read)
    if any((path / name).exists() for name in PICKLED):
        raise DataError(
            f"{path} has the pickled files of CIFAR, which may run code. Use"
            " cifar-10-binary.tar.gz or cifar-100-binary.tar.gz from"
            " https://www.cs.toronto.edu/~kriz/cifar.html instead."
        )
    return None


def _list_batches(folder: Path, files: Sequence[Path], label_count: int, *_: object) -> Arrays:
    names, *train, test = files
    with readable(folder):
        classes = names.read_text("utf-8").split()
        splits: dict[Split, Sequence[Path]] = {"train": train, "test": [test]}
        parts: dict[Split | None, Part] = {}
        for split, batches in splits.items():
            rows = np.concatenate([np.fromfile(file, np.uint8) for file in batches])
            rows = rows.reshape(-1, label_count + CIFAR_IMAGE_BYTES)
            pixels = rows[:, label_count:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts[split] = Part(pixels, rows[:, label_count - 1].astype(np.int64))
    return join_parts(folder, parts, "the official files", lambda targets: (targets, classes))


def find_download_mb(source: str) -> int:
    """The size of the download that a data set needs; 0 if the set is on this machine."""
    if source not in PUBLISHED or downloaded_path(source).exists():
        return 0
    if source == "cifar10" and os.environ.get("LAMINA_CIFAR10"):
        return 0
    return PUBLISHED[source].size_mb
