"""Read the official CIFAR-10 and CIFAR-100 files: pickled batches, without running their code.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from lamina.data.arrays import Pixels
from lamina.data.preparation import Preparation
from lamina.data.sources.listing import (
    Arrays,
    Part,
    Source,
    join_parts,
    mark_state,
    readable,
)
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
            has_batch = any((folder / name).is_file() for name in files.train)
            if has_batch and (folder / files.meta).is_file():
                state = [(file.name, mark_state(file.stat())) for file in sorted(folder.iterdir())]
                return Source(state, partial(_list_arrays, folder, files))
    return None


def _list_arrays(folder: Path, files: _BatchFiles, *_: object) -> Arrays:
    if missing := [name for name in files.all if not (folder / name).is_file()]:
        raise DataError(f"{folder} does not contain {', '.join(missing)}. {REMEDY}")
    stored_names = _read_file(folder / files.meta).get(files.target_names)
    if not isinstance(stored_names, list):
        raise DataError(f"{files.meta} has no list of {files.target_names}. {REMEDY}")
    target_names = tuple(map(_text, stored_names))
    parts: dict[Split | None, Part] = {
        "train": _read_part("train", [folder / name for name in files.train], files),
        "test": _read_part("test", [folder / files.test], files),
    }
    return join_parts(folder, parts, "the official files", lambda y: (y, target_names))


def _read_part(split: Split, batches: Sequence[Path], files: _BatchFiles) -> Part:
    pixels: list[Pixels] = []
    labels: list[Int64[np.ndarray, " n"]] = []
    names: list[str] = []
    for file in batches:
        batch = _read_file(file)
        try:
            rows = _read_bytes(batch["data"]).reshape(-1, 3, 32, 32)
            pixels.append(rows.transpose(0, 2, 3, 1))
            labels.append(np.array(batch[files.targets], dtype=np.int64))
            numbered = [f"{file.name}-{row:05d}" for row in range(len(rows))]
            stored = zip(rows, batch.get("filenames", numbered), strict=True)
            names += [f"{split}/{_text(name)}" for _, name in stored]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{file.name} is not a batch of 32×32 RGB images with {files.targets}: {error!r}."
                f" {REMEDY}"
            ) from error
    return Part(np.concatenate(pixels), np.concatenate(labels), names)


def _read_file(file: Path) -> dict[str, Any]:
    with readable(file):
        data = file.read_bytes()
    return read_pickle(data, file.name)


def read_pickle(data: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and byte arrays, without calling what it names."""
    try:
        if not data.endswith(pickle.STOP):
            raise EOFError("pickle data was truncated")
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}
    except DataError as error:
        raise DataError(f"{name} is rejected: {error}") from None
    except Exception as error:  # on a damaged pickle, the unpickler raises almost anything
        raise DataError(f"{name} is damaged: {error}. {REMEDY}") from error


def _text(stored: object) -> str:
    value = _restore_bytes(stored)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _restore_bytes(stored: Any) -> Any:
    """Bytes that Python 3 wrote for Python 2, as a call of ``_codecs.encode``."""
    return stored.arguments[0].encode("latin1") if isinstance(stored, _Call) else stored


def _read_bytes(array: _Call) -> UInt8[np.ndarray, " values"]:
    """The values of an array of bytes, from the calls that would restore it."""
    _, _, dtype, is_fortran, data = array.state
    if dtype.arguments[0] not in ("u1", b"u1") or is_fortran:
        raise ValueError("expected an array of uint8 in row order")
    return np.frombuffer(_restore_bytes(data), np.uint8)


class _Call:
    """A call of numpy in a pickle, recorded but not made: numpy would trust its arguments.

    A pickle cannot change the class: to set the state of a class, not an instance, lacks ``self``.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


_ALLOWED = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


# in Python: the C version allocates lists of any length the file claims
class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type[_Call]:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"its pickle asks for {module}.{name}, which is neither an array nor a container."
                f" {REMEDY}"
            )
        return _Call
