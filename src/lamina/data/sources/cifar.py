"""Read the official CIFAR-10 and CIFAR-100 files: pickled batches, without running their code.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import math
import pickle
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from lamina.data.images import Images
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import Arrays, Source, list_images, mark_state, readable
from lamina.data.splits import Split
from lamina.errors import DataError


class _BatchFiles(NamedTuple):
    train: tuple[str, ...]
    test: str
    meta: str
    target_names: str
    targets: str

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFAR10 = _BatchFiles(
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    "batches.meta",
    "label_names",
    "labels",
)
CIFAR100 = _BatchFiles(("train",), "test", "meta", "fine_label_names", "fine_labels")
REMEDY = "Download or unpack the official archive again."


def open_batches(path: Path, _: Preparation) -> Source | None:
    """Open the folder of an unpacked official archive, or its parent."""
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-100-python"):
        for files in (CIFAR10, CIFAR100):
            if (folder / files.meta).is_file() and any(
                (folder / name).is_file() for name in files.train
            ):
                state = [(file.name, mark_state(file.stat())) for file in sorted(folder.iterdir())]
                return Source(state, lambda *_, folder=folder: list_batches(folder))
    return None


def list_batches(path: Path) -> Arrays:
    """List a folder of the official files; ``DataError`` if one is missing or invalid."""
    files = CIFAR10 if (path / CIFAR10.meta).is_file() else CIFAR100
    if missing := [name for name in files.all if not (path / name).is_file()]:
        raise DataError(f"{path} does not contain {', '.join(missing)}. {REMEDY}")
    stored_names = _read_file(path / files.meta).get(files.target_names)
    if not isinstance(stored_names, list):
        raise DataError(f"{files.meta} has no list of {files.target_names}. {REMEDY}")
    target_names = tuple(map(_text, stored_names))
    parts: dict[Split, tuple[str, ...]] = {"train": files.train, "test": (files.test,)}
    splits: dict[Split, Images] = {}
    for split, batches in parts.items():
        columns = zip(*(_read_batch(path / name, files) for name in batches), strict=True)
        pixels, targets, names = columns
        image_names = tuple(f"{split}/{name}" for name in chain.from_iterable(names))
        splits[split] = Images(
            np.concatenate(pixels), np.concatenate(targets), target_names, image_names, split
        )
    return list_images(splits, "the official files")


def _read_batch(
    file: Path, files: _BatchFiles
) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"], list[str]]:
    """The pixels, targets and names of the images in a file."""
    batch = _read_file(file)
    try:
        rows = batch["data"].pixels()
        names = batch.get("filenames", [f"{file.name}-{row:05d}" for row in range(len(rows))])
        pixels = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return pixels, np.array(batch[files.targets], dtype=np.int64), list(map(_text, names))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file.name} is not a batch of 32×32 RGB images with {files.targets}: {error!r}."
            f" {REMEDY}"
        ) from error


def _read_file(file: Path) -> dict[str, Any]:
    with readable(file):
        data = file.read_bytes()
    return read_pickle(data, file.name)


def read_pickle(data: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and byte arrays, and call nothing that it names."""
    try:
        if not data.endswith(pickle.STOP):
            raise EOFError("pickle data was truncated")
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}
    except DataError as error:
        raise DataError(f"{name} is rejected: {error}") from None
    except Exception as error:  # on a damaged pickle, the unpickler raises almost anything
        raise DataError(f"{name} is damaged: {error}. {REMEDY}") from error


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _StandIn:
    """Stands in for every class in a pickle, so that no code, such as numpy, gets its values.

    A pickle cannot change the stand-ins: setting the state of a class, not an instance, fails for
    lack of ``self``.
    """

    def __setstate__(self, state: Any) -> None:
        """Ignore the state of a dtype, its byte order, which does not matter for single bytes."""


class _Array(_StandIn):
    def __init__(self, *_: object) -> None:
        self._shape: tuple[int, ...] = ()
        self._data: bytes | bytearray = b""

    def __setstate__(self, state: Any) -> None:
        _, self._shape, _, is_fortran, self._data = state
        if is_fortran:
            raise DataError("its array is stored in column order; expected row order.")

    def pixels(self) -> UInt8[np.ndarray, "n values"]:
        if not isinstance(self._data, bytes | bytearray) or math.prod(self._shape) != len(
            self._data
        ):
            raise ValueError("the size of its array does not match its shape")
        return np.frombuffer(self._data, np.uint8).reshape(self._shape)


class _BufferArray(_Array):
    def __init__(self, data: object, dtype: object, shape: object, order: object) -> None:
        self.__setstate__((1, shape, dtype, order != "C", data))


class _Dtype(_StandIn):
    def __init__(self, name: object, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise DataError(f"its array has the dtype {name!r}; expected uint8.")


class _Latin1(_StandIn, bytes):
    """The result of ``_codecs.encode``: bytes in a pickle that Python 3 wrote for Python 2."""

    def __new__(cls, text: str, _encoding: str) -> _Latin1:
        return super().__new__(cls, text, "latin1")


_ADMITTED: dict[tuple[str, str], type[_StandIn]] = {
    ("_codecs", "encode"): _Latin1,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _StandIn,  # pickles name it without calling it
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _BufferArray,
    ("numpy._core.numeric", "_frombuffer"): _BufferArray,
}


# in Python: the C version allocates lists of any length the file claims
class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise DataError(
                f"its pickle asks for {module}.{name}, which is neither an array nor a container."
                f" {REMEDY}"
            ) from None
