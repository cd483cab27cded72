"""Check a user's arrays and convert them to pixels and targets; messages explain conversions."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Set
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from lamina.errors import DataError, describe_type, name_some, plural, suggest
from lamina.targets import KINDS, SINGLE_LABEL, KindName, Targets, kind_of

Pixels: TypeAlias = UInt8[np.ndarray, "n h w c"]
ImagePixels: TypeAlias = UInt8[np.ndarray, "h w c"]

CHANNELS = (1, 3, 4)
"""Lengths for which the last axis holds channels, as in (N, H, W, C); it is a width otherwise."""
BLOCK_IMAGES = 256
MANY_NUMBERS = 20  # up to this many distinct whole floats may be classes


@runtime_checkable
class TensorLike(Protocol):
    """A torch tensor on any device, recognized without torch, which is slow to import."""

    def detach(self) -> TensorLike: ...

    def cpu(self) -> TensorLike: ...


def to_array(value: Any, name: str) -> np.ndarray:
    """Convert lists, tensors (any device) and array-likes; messages call them ``name``."""
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(
            f"{name} is a masked array, and the mask would be lost. Fill the gaps, as in"
            f" {name}.filled(0), or leave out those images."
        )
    if isinstance(value, TensorLike):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError:
        raise DataError(
            f"{name} has rows of different shapes; all images and all targets must have the same"
            " shape."
        ) from None
    except (TypeError, RuntimeError):
        raise DataError(
            f"{name} must be an array, got {describe_type(value)}, which numpy cannot convert."
        ) from None


def to_pixels(value: Any, name: str) -> Pixels:
    """Return images as uint8 (N, H, W, C), given uint8 (N, H, W, C) or (N, H, W)."""
    expected = f"{name} must be a uint8 array of shape (N, H, W) or (N, H, W, C)"
    if hasattr(value, "pixels"):
        raise DataError(
            f"{expected}, but got {describe_type(value)}. Pass its pixels, as in images.pixels."
        )
    x = to_array(value, name)
    if x.ndim not in (3, 4) or x.dtype.kind not in "biuf":
        remedy = ""
        if x.ndim == 2 and x.dtype.kind in "biuf":
            remedy = f" Pass a single image as {name}[None]."
        raise DataError(f"{expected}, but got {_describe_array(value, x)}.{remedy}")
    if 0 in x.shape[1:]:
        raise DataError(
            f"{name} has images without pixels: its shape is {x.shape}. Check how you cropped or"
            " resized them."
        )
    written = write_array(value, name)
    where = ""
    if x.ndim == 4 and x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS:
        written += ".transpose(0, 2, 3, 1)"
        where = f" with channels last, got shape {x.shape}"
    if x.dtype != np.uint8:
        advice = _advise_scale(x, name, written)
        raise DataError(f"Expected {name} of uint8, 0 to 255, got {x.dtype}. {advice}")
    if where:
        raise DataError(f"Expected {name}{where}. Use {written}.")
    return x[..., None] if x.ndim == 3 else x


def write_array(value: Any, name: str) -> str:
    """Code for the argument as a numpy array, for advice."""
    return name if isinstance(value, np.ndarray) else f"np.asarray({name})"


def has_only_0_and_1(pixels: Pixels) -> bool:
    """Whether no value is above 1, so that images look black; stops at the first higher value."""
    blocks = (pixels[start : start + BLOCK_IMAGES] for start in range(0, len(pixels), BLOCK_IMAGES))
    return all(block.max(initial=0) <= 1 for block in blocks)


def _advise_scale(x: np.ndarray, name: str, written: str) -> str:
    low = x.min() if x.size else 0
    high = x.max() if x.size else 0
    conversions = {
        (0, 1): f"({written} * 255.0)",
        (-1, 1): f"(({written} + 1) * 127.5)",
        (0, 255): written,
    }
    for (least, most), conversion in conversions.items():
        if least <= low <= high <= most:
            return (
                f"Convert values from {least} to {most} with {conversion}.round().astype(np.uint8)."
            )
    return f"{name} has values from {low:g} to {high:g}: correct them, or scale them to 0 to 255."


def to_targets(value: Any, names: Any, task: KindName | None) -> tuple[Targets, tuple[str, ...]]:
    """Return the targets, of kind ``task`` or inferred from their values, and their names."""
    y = to_array(value, "y")
    listed = _check_names(names)
    kinds = [kind.name for kind in KINDS]
    if task is not None and task not in kinds:
        raise DataError(
            f"task is {task!r}, which is not a kind of target. {suggest(str(task), kinds)}"
        )
    if task == "regression" and y.dtype.kind in "biu" and y.ndim in (1, 2):
        y = y.astype(np.float64)
    _check_one_type(y, value)
    _check_kind(y, value, task)
    target_names: tuple[str, ...] = ("target",)
    if y.ndim == 2:
        target_names = tuple(f"label_{column}" for column in range(y.shape[1]))
    targets = y
    if y.dtype.kind == "b" and y.ndim == 1 and listed is not None and len(listed) != 1:
        raise DataError(
            "y of booleans (N,) is one yes/no target, so names must hold one name, such as "
            f"names={[listed[-1]]}, got {', '.join(listed)}. For two classes, use "
            f"{write_array(value, 'y')}.astype(int)."
        )
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(
                "y contains NaN or infinity. Correct these targets, or leave out their images."
            )
        targets = y.reshape(len(y), len(target_names)).astype(np.float32)
    elif y.dtype.kind in "iu":
        targets, target_names = _number_classes(y, listed)
    elif y.dtype.kind != "b":
        targets, target_names = _name_classes(y, listed)
    target_names = listed or target_names
    if task is not None and (kind := kind_of(targets).name) != task:
        raise DataError(f"y has {kind} targets, but task is {task}. Convert y, or leave task out.")
    return targets, target_names


def _check_one_type(y: np.ndarray, value: Any) -> None:
    """Raise ``DataError`` for mixed types and for numbers stored as objects."""
    is_converted = y.dtype.kind == "U" and isinstance(value, list | tuple)  # numbers become text
    if y.ndim != 1 or not (y.dtype == object or is_converted):
        return
    if missing := sum(target is None for target in value):
        where = plural(missing, "image", "images")
        raise DataError(f"y is None for {where}. Correct these targets, or leave out their images.")
    examples = {type(target).__name__: repr(target) for target in value}
    if all(isinstance(target, str) for target in value):
        return
    raise DataError(
        f"y has values such as {', '.join(examples.values())}, but must be numbers, booleans or"
        f" strings of one type. Use {write_array(value, 'y')}.astype(int), or another type."
    )


def _check_kind(y: np.ndarray, value: Any, task: KindName | None) -> None:
    """Raise ``DataError`` for invalid targets, and for numbers that may mean classes or labels."""
    written = write_array(value, "y")
    is_table = y.ndim == 2
    if is_table and y.shape[1] == 1 and y.dtype.kind not in "bf":
        raise DataError(
            f"Expected one class per image, y of shape (N,), got {y.shape}. Use {written}.ravel()."
        )
    if y.ndim not in (1, 2) or y.dtype.kind not in ("bf" if is_table else "biufUTO"):
        remedy = (
            f" Convert one-hot rows with {written}.argmax(axis=1), labels with"
            f" {written}.astype(bool)."
        )
        raise DataError(
            "Expected y as whole numbers or strings (N,) for classes, as booleans (N,) or (N, K),"
            f" or as floats (N,) or (N, K), got {_describe_array(value, y)}.{remedy * is_table}"
        )
    if task is not None or y.dtype.kind != "f" or not y.size:
        return
    numbers = np.unique(y)
    is_column = not is_table or y.shape[1] == 1
    if is_column:
        may_be_classes = len(numbers) <= max(MANY_NUMBERS, len(y) // 2)
        if may_be_classes and (numbers == np.round(numbers)).all():
            column = written + "[:, 0]" * is_table
            raise DataError(
                f"y has whole numbers as {y.dtype}, which may be classes or numbers to predict. Use"
                f' {column}.astype(int) for classes, or task="regression" for numbers.'
            )
    elif np.isin(numbers, (0, 1)).all():
        raise DataError(
            f"y has {y.shape[1]} columns of only 0 and 1 as {y.dtype}, which may be classes, labels"
            f" or numbers to predict. Use {written}.argmax(axis=1) for classes,"
            f' {written}.astype(bool) for labels, or task="regression" for numbers.'
        )


def _check_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    has_order = isinstance(names, Iterable) and not isinstance(names, str | Mapping | Set)
    listed = list(names) if has_order else []
    if not listed or not all(isinstance(name, str) for name in listed):
        raise DataError(
            "names must be a list of strings, one for each class, label or number, in order, such"
            f" as ['cat', 'dog'], got {reprlib.repr(names)}."
        )
    if len(set(listed)) < len(listed):
        raise DataError(f"names must differ, got {', '.join(listed)}. Rename or merge the classes.")
    return tuple(map(str, listed))


def _number_classes(
    y: np.ndarray, names: tuple[str, ...] | None
) -> tuple[Targets, tuple[str, ...]]:
    numbers = np.unique(y).tolist()
    if names is None and numbers != list(range(len(numbers))):
        named = ""
        if numbers[0] >= 0:
            named = f", or pass names for all numbers from 0 to {numbers[-1]}"
        raise DataError(
            f"y has the classes {name_some(list(map(str, numbers)))}, but classes must be 0, 1, 2 …"
            f" without gaps. Renumber them with _, y = np.unique(y, return_inverse=True){named}."
        )
    targets = y.astype(np.int64)
    classes = names or tuple(map(str, numbers))
    SINGLE_LABEL.check(targets, classes)
    return targets, classes


def _name_classes(y: np.ndarray, names: tuple[str, ...] | None) -> tuple[Targets, tuple[str, ...]]:
    texts = list(map(str, y.tolist()))
    distinct = sorted({*texts})
    classes = names or tuple(distinct)
    if unknown := [text for text in distinct if text not in classes]:
        raise DataError(
            f"y has {name_some(unknown)}, not listed in names: {', '.join(classes)}. Add them to"
            " names."
        )
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[text] for text in texts], np.int64), classes


def _describe_array(value: Any, array: np.ndarray) -> str:
    if array.dtype == object and not isinstance(value, np.ndarray):
        return describe_type(value)
    kind = "an array of strings" if array.dtype.kind in "SU" else array.dtype
    return f"{kind} of shape {array.shape}"
