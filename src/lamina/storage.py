"""Files that are whole or not there: written beside, synced and renamed, and checked against a digest when read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lamina.errors import RunError

METADATA = "lamina"
RESTORE = "Restore it from a copy, or train again."
"""What to do about most damaged files of a run."""


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file so that whoever reads it, even after a crash, finds the old content or the new and nothing between.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    with open_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write in the block, which takes the place of ``path`` where the block ends without an error.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed have left beside their files; nobody may be writing in the folder."""
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{8}", file.name) and file.is_file():
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Let a renaming inside a folder be on disk, where the system can open folders (Windows cannot)."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object of plain values as JSON, atomically.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_bytes(file: Path) -> bytes:
    """The content of a file of a run.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror}. Check that the file may be read.") from error


def parse_object(text: bytes, what: str, remedy: str = RESTORE) -> dict[str, Any]:
    """The JSON object that ``text`` holds.

    Raises:
        RunError: it holds none; the message calls it ``what`` and ends in ``remedy``.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(what, error, remedy) from error
    if not isinstance(values, dict):
        raise damaged(what, f"expected a JSON object, got {values!r:.60}", remedy)
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and plain values as one safetensors file, atomically, with a digest of both in it.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    written: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, as tied weights do.
        if (place := plain.untyped_storage().data_ptr()) in places:
            plain = plain.clone()
        places.add(place)
        written[name] = plain
    text = json.dumps(values)
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {METADATA: json.dumps({"digest": _digest(written, text), "values": text})}
    write_atomically(path, safetensors.torch.save(written, metadata))


def read_tensors(file: Path, remedy: str = RESTORE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`write_tensors` wrote, on the CPU; of a file without any metadata, the tensors and no values.

    Raises:
        RunError: the file cannot be read, or is not as it was written; the message ends in ``remedy``.
    """
    content = read_bytes(file)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except (SafetensorError, KeyError) as error:  # a type that torch has no name for is a KeyError
        raise damaged(str(file), error, remedy) from error
    # safetensors gives the metadata of files alone, and this one may have been replaced since it was read.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__")
    if metadata is None:
        return tensors, {}
    told = parse_object(metadata.get(METADATA, "{}").encode("utf-8", "surrogatepass"), str(file), remedy)
    text = str(told.get("values", ""))
    if told.get("digest") != _digest(tensors, text):
        raise damaged(str(file), "its content is not that which was written, by its digest", remedy)
    values: dict[str, Any] = json.loads(text)
    return tensors, values


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A digest (BLAKE2b, 128 bits, in hexadecimal) of names, types, shapes and values, to the last bit.

    >>> one, other = torch.zeros(2), torch.tensor([0.0, -0.0])
    >>> digest_tensors({"weight": one}) == digest_tensors({"weight": other})
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def damaged(what: str, why: object, remedy: str = RESTORE) -> RunError:
    """The error that a file is not what it should be."""
    return RunError(f"{what} is damaged: {str(why).rstrip('.')}. {remedy}")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.blake2b(
        f"{digest_tensors(tensors)} {text}".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()
