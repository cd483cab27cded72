"""What the server and its worker process send each other: JSON with a length before it, and pictures as they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def pack_values(values: Any) -> bytes:
    """A message: JSON, after its length."""
    text = json.dumps(values).encode()
    return LENGTH.pack(len(text)) + text


def pack_head(task: str, model: int, sizes: Sequence[int]) -> bytes:
    """The head of a request: what to do with which model, and the sizes of the pictures that follow."""
    return pack_values({"task": task, "model": model, "sizes": sizes})


def read_request(file: BinaryIO) -> tuple[str, int, list[bytes]] | None:
    """The next request; ``None`` where the server has closed the pipe."""
    length = file.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    head = json.loads(file.read(*LENGTH.unpack(length)))
    return head["task"], head["model"], [file.read(size) for size in head["sizes"]]
