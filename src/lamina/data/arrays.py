"""Arrays of pixels and targets: check and convert those of a user, and digest pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from lamina.errors import DataError, describe_type, name_some, suggest
from lamina.targets import KINDS, KindName, Targets, kind_of

Pixels: TypeAlias = UInt8[np.ndarray, "n h w c"]
ImagePixels: TypeAlias = UInt8[np.ndarray, "h w c"]

CHANNELS = (1, 3, 4)
"""Lengths for which the last axis holds channels, as in (N, H, W, C); it is a width otherwise."""
BLOCK_IMAGES = 256
DIGEST_BYTES = 16
MANY_NUMBERS = 20  # up to this many distinct whole floats may be classes
TARGETS = (
    "Expected y as whole numbers or strings (N,) for classes, as booleans (N,) or (N, K) for"
    " labels, or as floats (N,) or (N, K) for numbers, without gaps such as None or NaN"
)
CONVERT_TARGETS = (
    "For classes, use y.astype(int), and for one-hot rows y.argmax(axis=1); for labels,"
    ' y.astype(bool); for numbers to predict, task="regression".'
)


@runtime_checkable
class TensorLike(Protocol):
    """A torch tensor on any device, recognized without torch, which is slow to import."""

    def detach(self) -> TensorLike: ...

    def cpu(self) -> TensorLike: ...


def to_array(value: Any, name: str) -> np.ndarray:
    """Convert lists, tensors (any device) and array-likes; messages call them ``name``."""
    if isinstance(value, TensorLike):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{name} must be an array, got {describe_type(value)}: {error}. All images and all"
            " targets must have the same shape."
        ) from None


def to_pixels(value: Any, name: str) -> Pixels:
    """Return images as uint8 (N, H, W, C), given uint8 (N, H, W, C) or (N, H, W)."""
    x = to_array(value, name)
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape[1:]:
        values = ""
        if x.size and x.dtype.kind in "biuf":
            values = f" with values from {x.min():g} to {x.max():g}"
        raise DataError(
            f"{name} must be a uint8 array of shape (N, H, W) or (N, H, W, C), 0 to 255, got"
            f" {x.dtype} of shape {x.shape}{values}.",
            remedy=f"Convert values from 0 to 1 with ({name} * 255.0).round().astype(np.uint8);"
            f" pass a single image as {name}[None].",
        )
    if x.ndim == 4 and x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS:
        raise DataError(
            f"Expected {name} with channels last, got shape {x.shape}. Use"
            f" {name}.transpose(0, 2, 3, 1)."
        )
    return x[..., None] if x.ndim == 3 else x


def has_only_0_and_1(pixels: Pixels) -> bool:
    """Whether no value is above 1, so that images look black; stops at the first higher value."""
    blocks = (pixels[start : start + BLOCK_IMAGES] for start in range(0, len(pixels), BLOCK_IMAGES))
    return all(block.max(initial=0) <= 1 for block in blocks)


def digest_rows(pixels: Pixels) -> UInt8[np.ndarray, "n 16"]:
    """A digest of each image's pixels; identical images of one array have equal digests."""
    # Makes no copy of contiguous rows, as in a split.
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), math.prod(pixels.shape[1:]))
    digests = (hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest() for row in rows)
    return join_digests(digests)


def join_digests(digests: Iterable[bytes]) -> UInt8[np.ndarray, "n 16"]:
    joined = bytearray(b"".join(digests))
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def find_digests(
    digests: UInt8[np.ndarray, "n 16"], known: UInt8[np.ndarray, "m 16"]
) -> Bool[np.ndarray, " n"]:
    """Whether each digest is among the known ones."""
    values, others = (np.ascontiguousarray(part).view("S16")[:, 0] for part in (digests, known))
    return np.isin(values, others)


def may_have_copies(parts: Sequence[UInt8[np.ndarray, "_ 16"]]) -> bool:
    """Whether images may be identical: a fast check without a frame."""
    words = [np.ascontiguousarray(digests).view(np.uint64)[:, 0] for digests in parts]
    halves = np.concatenate([np.empty(0, np.uint64), *words])
    return len(np.unique(halves)) < len(halves)


def to_targets(
    value: Any, names: Sequence[Any] | None, task: KindName | None
) -> tuple[Targets, tuple[str, ...]]:
    """Return the targets, of kind ``task`` or inferred from their values, and their names."""
    y = to_array(value, "y")
    kinds = [kind.name for kind in KINDS]
    if task is not None and task not in kinds:
        raise DataError(
            f"task is {task!r}, which is not a kind of target. {suggest(str(task), kinds)}"
        )
    _check_names(names)
    if task == "regression" and y.dtype.kind in "biu":
        y = y.astype(np.float64)
    if y.dtype == object and all(isinstance(target, str) for target in y.flat):
        y = y.astype(str)
    target_names: tuple[str, ...] = ("target",)
    if y.ndim == 2 and y.dtype.kind in "bf":
        target_names = tuple(f"label_{column}" for column in range(y.shape[1]))
    targets = y
    match y.dtype.kind:
        case "b" if y.ndim in (1, 2):
            pass
        case "f" if y.ndim in (1, 2) and np.isfinite(y).all():
            if task is None:
                _check_numbers(y)
            targets = y.reshape(len(y), len(target_names)).astype(np.float32)
        case "i" | "u" | "U" | "T" if y.ndim == 1:
            targets, target_names = _read_classes(y, names)
        case _:
            raise DataError(f"{TARGETS}, got {y.dtype} of shape {y.shape}.", CONVERT_TARGETS)
    target_names = target_names if names is None else tuple(names)
    kind = kind_of(targets)
    if task is not None and kind.name != task:
        raise DataError(f"y has {kind} targets, but task is {task}. Convert y, or leave task out.")
    return targets, target_names


def _check_names(names: Any) -> None:
    if names is None:
        return
    are_listed = isinstance(names, Sequence) and not isinstance(names, str)
    are_texts = are_listed and all(isinstance(name, str) for name in names)
    if not are_texts or not names or len(set(names)) < len(names):
        raise DataError(
            "names must be a list of different strings, one for each class, label or number, in"
            f" order, such as ['cat', 'dog'], got {names!r:.100}."
        )


def _check_numbers(y: np.ndarray) -> None:
    """Raise ``DataError`` for whole numbers as floats, which may be classes or labels."""
    numbers = np.unique(y)
    most = 2
    if y.ndim == 1 or y.shape[1] == 1:
        most = max(MANY_NUMBERS, len(y) // 2)
    may_be_classes = len(numbers) <= most and (numbers == np.round(numbers)).all()
    if may_be_classes and y.size and (most > 2 or np.isin(numbers, (0, 1)).all()):
        raise DataError(
            f"y has whole numbers as {y.dtype} of shape {y.shape}, which may be classes, labels or"
            " numbers to predict.",
            CONVERT_TARGETS,
        )


def _read_classes(y: np.ndarray, names: Sequence[str] | None) -> tuple[Targets, tuple[str, ...]]:
    distinct = np.unique(y).tolist()
    if y.dtype.kind in "iu":
        if names is None and distinct != list(range(len(distinct))):
            raise DataError(
                f"y has the classes {name_some(list(map(str, distinct)))}, but classes must be 0,"
                " 1, 2 … without gaps. Renumber them with _, y = np.unique(y, return_inverse=True),"
                " or pass names for all numbers."
            )
        return y.astype(np.int64), tuple(map(str, distinct)) if names is None else tuple(names)
    classes = tuple(distinct) if names is None else tuple(names)
    if unknown := sorted({*distinct} - {*classes}):
        raise DataError(
            f"y has {name_some(unknown)}, not listed in names: {', '.join(classes)}. Add them to"
            " names."
        )
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[text] for text in y.tolist()], np.int64), classes
