"""Arrays that a user has: checked, and converted to pixels and targets. Messages say how to convert the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lamina.errors import DataError, describe_type, name_some, suggest
from lamina.targets import KINDS, SINGLE_LABEL, KindName, Targets, kind_of

CHANNELS = (1, 3, 4)
"""What the last axis of one image (H, W, C) may be: an axis of another length is a width, and that of (N, H, W)."""


def to_array(value: Any, name: str) -> np.ndarray:
    """What :func:`numpy.asarray` takes, such as lists, and tensors wherever they are; ``name`` is the argument's."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError:
        remedy = "Give one target for each image." if name == "y" else "Resize all images to one size."
        raise DataError(f"{name} has rows of different shapes, but an array needs equal ones. {remedy}") from None
    except (TypeError, RuntimeError):
        raise DataError(f"{name} must be an array, got {describe_type(value)}, which numpy cannot convert.") from None


def to_pixels(value: Any, name: str) -> UInt8[np.ndarray, "n h w c"]:
    """Images as uint8 (N, H, W, C), from that or uint8 (N, H, W)."""
    x = to_array(value, name)
    if x.ndim not in (3, 4) or x.dtype.kind not in "biuf":
        remedy = f" Give one image as {name}[None]." if x.ndim == 2 else ""
        remedy = " Give its pixels, as in images.pixels." if hasattr(value, "pixels") else remedy
        raise DataError(f"Expected {name} as uint8 (N, H, W) or (N, H, W, C), got {_describe_given(value, x)}.{remedy}")
    if x.dtype != np.uint8:
        raise DataError(f"Expected {name} of uint8, 0 to 255, got {x.dtype}. {_advise_scale(x, name)}")
    if x.ndim == 4 and x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS:
        turn = "permute" if hasattr(value, "permute") else "transpose"
        raise DataError(f"Expected {name} with channels last, got shape {x.shape}. Use {name}.{turn}(0, 2, 3, 1).")
    return x[..., None] if x.ndim == 3 else x


def _advise_scale(x: np.ndarray, name: str) -> str:
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if x.dtype.kind == "f" and 0 <= low <= high <= 1:
        return f"Convert fractions from 0 to 1 by ({name} * 255).round().astype(np.uint8)."
    if 0 <= low <= high <= 255:
        how = ".round()" if x.dtype.kind == "f" else ""
        return f"Convert values from 0 to 255 by {name}{how}.astype(np.uint8)."
    return f"It has values from {low:g} to {high:g}: scale them to 0 to 255 first."


def to_targets(value: Any, names: Sequence[str] | None, task: KindName | None) -> tuple[Targets, tuple[str, ...]]:
    """Targets of the kind that follows from their values, or of ``task``, and their names."""
    y, given = to_array(value, "y"), _check_names(names)
    if task is not None and task not in {kind.name for kind in KINDS}:
        raise DataError(f"task was {task!r}, which is no kind of target. {suggest(str(task), [k.name for k in KINDS])}")
    if task == "regression" and y.dtype.kind in "biu" and y.ndim in (1, 2):
        y = y.astype(np.float64)
    _check_kind(y, value, task)
    columns = tuple(f"label_{column}" for column in range(y.shape[1])) if y.ndim == 2 else ("target",)
    if y.dtype.kind == "b":
        targets, found = y, given or columns
    elif y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError("y contains NaN or infinity. Correct these targets, or leave out their images.")
        targets, found = y.reshape(len(y), len(columns)).astype(np.float32), given or columns
    else:
        targets, found = (_number_classes if y.dtype.kind in "iu" else _name_classes)(y, given)
    if task is not None and (kind := kind_of(targets).name) != task:
        raise DataError(f"y has targets of the kind {kind}, not {task}. Convert them, or leave task out.")
    return targets, found


def _check_kind(y: np.ndarray, value: Any, task: KindName | None) -> None:
    """Raise ``DataError`` for arrays that are no targets, and for numbers that may be meant as classes or labels."""
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind not in "bf":
        raise DataError(f"Expected a class for each image, y of shape (N,), got {y.shape}. Use y.ravel().")
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.dtype.kind not in "bf") or y.dtype.kind not in "biufUTO":
        raise DataError(
            "Expected y of whole numbers or texts (N,) for classes, booleans (N,) or (N, K), or floats (N,) or (N, K), "
            f"got {_describe_given(value, y)}. Convert one-hot rows by y.argmax(axis=1), labels by y.astype(bool)."
        )
    if task is not None or y.dtype.kind != "f" or not y.size:
        return
    if y.ndim == 1 and (y == np.round(y)).all():
        raise DataError(
            f"y has whole numbers as {y.dtype}, which may be classes or numbers to predict. Use y.astype(int) for "
            'classes, or task="regression" for numbers.'
        )
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all():
        raise DataError(
            f"y has {y.shape[1]} columns of only 0 and 1 as {y.dtype}, which may be classes, labels or numbers to "
            'predict. Use y.argmax(axis=1) for classes, y.astype(bool) for labels, or task="regression" for numbers.'
        )


def _check_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DataError(f"names must be a list of texts, one for each class, label or number, got {names!r}.")
    if len(set(names)) < len(names):
        raise DataError(f"Expected names that differ, got {', '.join(names)}.")
    return tuple(names)


def _number_classes(y: np.ndarray, given: tuple[str, ...] | None) -> tuple[Targets, tuple[str, ...]]:
    present = [int(number) for number in np.unique(y)]
    if given is None and present != list(range(len(present))):
        raise DataError(
            f"y has the classes {name_some([str(number) for number in present])}, but classes are counted from 0 "
            "without gaps. Renumber them by classes, y = np.unique(y, return_inverse=True), or name all of them, as in "
            'names=["cat", "dog"].'
        )
    targets, classes = y.astype(np.int64), given or tuple(map(str, present))
    SINGLE_LABEL.check(targets, classes)
    return targets, classes


def _name_classes(y: np.ndarray, given: tuple[str, ...] | None) -> tuple[Targets, tuple[str, ...]]:
    texts: list[str] = y.tolist()
    if others := [text for text in texts if not isinstance(text, str)]:
        raise DataError(f"Expected y of texts, got {others[0]!r} among them. Leave such images out.")
    classes = given or tuple(sorted(set(texts)))
    if unknown := sorted(set(texts) - set(classes)):
        raise DataError(f"y has {name_some(unknown)}, which names does not list: {', '.join(classes)}.")
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[text] for text in texts], np.int64), classes


def _describe_given(value: Any, array: np.ndarray) -> str:
    if array.dtype == object and not isinstance(value, np.ndarray):
        return describe_type(value)
    return f"{array.dtype} of shape {array.shape}"
