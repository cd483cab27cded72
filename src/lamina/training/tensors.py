"""Tensors and plain values in a safetensors file with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lamina.files import METADATA, blaming


def pack_tensors(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file with tensors, plain values and a digest of both."""
    written: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        contiguous = tensor.detach().cpu().contiguous()
        # safetensors rejects tensors that share memory, as tied weights do.
        if (place := contiguous.untyped_storage().data_ptr()) in places:
            contiguous = contiguous.clone()
        places.add(place)
        written[name] = contiguous
    text = json.dumps(values)
    # One entry, because safetensors writes several in an order that differs between processes.
    metadata = {METADATA: json.dumps({"digest": _digest(written, text), "values": text})}
    return bytes(safetensors.torch.save(written, metadata))


def unpack_tensors(
    content: bytes, what: str, remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Unpack tensors, on the CPU, and values of :func:`pack_tensors`; ``RunError`` if damaged."""
    with blaming(what, remedy):
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
        # safetensors reads metadata only from files, and this file may have been replaced
        # meanwhile.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__")
        if metadata is None:
            return tensors, {}
        stored = json.loads(metadata[METADATA])
        text = str(stored.get("values"))
        if stored.get("digest") != _digest(tensors, text):
            raise ValueError("its digest does not match its content")
        values: dict[str, Any] = json.loads(text)
        return tensors, values


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, dtypes, shapes and exact values (BLAKE2b, 128 bits, hexadecimal)."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.blake2b(
        f"{digest_tensors(tensors)} {text}".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()
