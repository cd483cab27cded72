"""What the server and its worker process send each other: JSON with a length before it, and pictures as they are."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def pack_values(values: Any) -> bytes:
    """JSON, after its length."""
    text = json.dumps(values).encode()
    return LENGTH.pack(len(text)) + text


def read_request(file: BinaryIO) -> tuple[str, int, list[bytes]] | None:
    """The next request; ``None`` where the server has closed the pipe."""
    length = file.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    head = json.loads(file.read(*LENGTH.unpack(length)))
    return head["task"], head["model"], [file.read(size) for size in head["sizes"]]
