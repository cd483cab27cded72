"""The arrays in NumPy's ``.npz`` and MNIST's IDX files, each checked against its header before it is read."""

from __future__ import annotations

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lamina.data.images import SPLITS, Split
from lamina.data.sources.archive import LIMITS, open_zip
from lamina.errors import DataError

# Labels in order pack a thousand to one, as a bomb does; what is small is let off.
RATIO_FLOOR_BYTES = 2**28
SPLIT_WORDS: Mapping[Split, Sequence[str]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
IMAGE_WORDS = ("images", "x", "data", "pixels", "image")
LABEL_WORDS = ("targets", "labels", "y", "target", "label")
NAME_KEYS = ("class_names", "target_names", "label_names", "classes")
NPZ_LAYOUT = "Expected x_train and y_train, train_images and train_labels, or images and targets."

IDX = re.compile(r"(.*?)(train|test|t10k)-(?:images([-.])idx3|labels([-.])idx1)-ubyte(?:\.gz)?")
UNSIGNED_BYTE = 8
CHUNK_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images and labels by split, as a file holds them; the split is None where it tells none."""

    images: Mapping[Split | None, Shaped[np.ndarray, "_ ..."]]
    labels: Mapping[Split | None, Shaped[np.ndarray, "_ ..."]]
    target_names: tuple[str, ...] | None
    label_reason: str


def find_idx(path: Path) -> dict[Split, tuple[Path, Path]]:
    """The files of images and of labels by split, of a folder or of one of them; empty where there are none.

    Raises:
        DataError: the folder has the files of several sets.
    """
    one = None if path.is_dir() else IDX.fullmatch(path.name)
    if not path.is_dir() and one is None:
        return {}
    for folder in (path, path / "raw") if one is None else (path.parent,):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        matches = [match for file in files if (match := IDX.fullmatch(file.name)) and (not one or match[1] == one[1])]
        if len(prefixes := sorted({match[1] for match in matches})) > 1:
            sets = ", ".join(f"{prefix}*" for prefix in prefixes)
            raise DataError(f"{folder} has the files of several sets: {sets}. Give the path of a file of one of them.")
        pairs: dict[Split, tuple[Path, Path]] = {}
        for match in matches:
            if mark := match[3]:  # the images; what is not packed comes first, and is taken
                labels = folder / match.string.replace(f"images{mark}idx3", f"labels{mark}idx1")
                pairs.setdefault("train" if match[2] == "train" else "test", (folder / match.string, labels))
        if pairs:
            return {split: pairs[split] for split in SPLITS if split in pairs}
    return {}


def read_idx(pairs: Mapping[Split, tuple[Path, Path]]) -> Arrays:
    """The arrays of IDX files; raises DataError where one is missing, damaged or not what its header says."""
    images: dict[Split | None, Shaped[np.ndarray, "_ ..."]] = {}
    labels: dict[Split | None, Shaped[np.ndarray, "_ ..."]] = {}
    for split, (image_file, label_file) in pairs.items():
        images[split] = _read_idx_file(image_file, 3)
        labels[split] = _read_idx_file(_packed_or_not(label_file), 1)
    return Arrays(images, labels, None, "the files of labels")


def read_npz(path: Path) -> Arrays:
    """The arrays of an ``.npz``.

    Raises:
        DataError: it is damaged, or lacks images or their labels, or one that is needed holds objects or is larger than
            the file can hold.
    """
    with _whole(path), open_zip(path) as archive:
        members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
        keys = _find_keys(list(members), path)
        names_key = _first(members, NAME_KEYS)
        wanted = [key for pair in keys.values() for key in pair] + ([names_key] if names_key else [])
        for key in wanted:
            _check_member(archive, members[key], path)
        found = {key: _read_member(archive, members[key]) for key in wanted}
    names = None if names_key is None else tuple(_text(name) for name in found[names_key].ravel().tolist())
    return Arrays(
        {split: found[pair[0]] for split, pair in keys.items()},
        {split: found[pair[1]] for split, pair in keys.items()},
        names,
        "arrays " + ", ".join(pair[1] for pair in keys.values())
        if len(keys) > 1
        else f"array {next(iter(keys.values()))[1]}",
    )


def _find_keys(present: Sequence[str], path: Path) -> dict[Split | None, tuple[str, str]]:
    """The names of the arrays of images and labels, by split."""
    keys: dict[Split | None, tuple[str, str]] = {}
    wanted: list[tuple[Split | None, Sequence[str], Sequence[str]]] = [
        (split, _with_split(IMAGE_WORDS, words), _with_split(LABEL_WORDS, words))
        for split, words in SPLIT_WORDS.items()
    ]
    for split, image_keys, label_keys in [*wanted, (None, IMAGE_WORDS, LABEL_WORDS)]:
        images, labels = _first(present, image_keys), _first(present, label_keys)
        if split is None and keys:
            break
        if images and labels:
            keys[split] = (images, labels)
        elif images:
            raise DataError(f"{path} has {images} and no labels for it, among {', '.join(present)}. {NPZ_LAYOUT}")
    if not keys:
        raise DataError(f"{path} has the arrays {', '.join(present) or 'none'}. {NPZ_LAYOUT}")
    return keys


def _with_split(words: Sequence[str], splits: Sequence[str]) -> list[str]:
    return [key for split in splits for word in words for key in (f"{word}_{split}", f"{split}_{word}")]


def _first(present: Sequence[str] | Mapping[str, object], wanted: Sequence[str]) -> str | None:
    by_lower = {key.lower(): key for key in present}
    return next((by_lower[key] for key in wanted if key in by_lower), None)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an array that is not what its header says, before room is made for it."""
    key = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        array_bytes = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "biufUS":
            what = "Python objects" if dtype.hasobject else f"values of the type {dtype}"
            raise DataError(f"array {key} of {path} holds {what}; expected numbers or text. Save it as such.")
        if min(shape, default=0) < 0 or file.tell() + array_bytes != member.file_size:
            raise DataError(
                f"array {key} of {path} should have {array_bytes} bytes by its header, and has "
                f"{member.file_size - file.tell()}. Make or download it again."
            )
    if member.file_size > max(RATIO_FLOOR_BYTES, LIMITS.compression_ratio * member.compress_size):
        raise DataError(f"array {key} of {path} is packed more than {LIMITS.compression_ratio} to 1. Save it unpacked.")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Shaped[np.ndarray, "_ ..."]:
    with archive.open(member) as file:
        array: Shaped[np.ndarray, "_ ..."] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _packed_or_not(file: Path) -> Path:
    other = file.with_name(file.name.removesuffix(".gz") if file.suffix == ".gz" else f"{file.name}.gz")
    if not file.exists() and not other.exists():
        raise DataError(f"there is no {file}, which tells what the pictures beside it show. Download it again.")
    return file if file.exists() else other


def _read_idx_file(path: Path, dimensions: int) -> Shaped[np.ndarray, "_ ..."]:
    """An array of unsigned bytes: two zeros, a type, the number of dimensions, their sizes, the bytes themselves."""
    packed_bytes = path.stat().st_size
    is_packed = path.suffix == ".gz"
    with _whole(path), gzip.open(path) if is_packed else path.open("rb") as file:
        magic = file.read(4)
        if magic != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
            raise DataError(
                f"{path} begins with {magic.hex(' ') or 'nothing'}, and an IDX file of "
                f"{'images' if dimensions == 3 else 'labels'} with 00 00 08 {dimensions:02x}. Download it again."
            )
        sizes = np.frombuffer(file.read(4 * dimensions), ">u4").tolist()
        promised_bytes = math.prod(sizes)
        most_bytes = max(RATIO_FLOOR_BYTES, LIMITS.compression_ratio * packed_bytes) if is_packed else packed_bytes
        data = _read_at_most(file.read, min(promised_bytes, most_bytes) + 1)
        if len(sizes) != dimensions or len(data) != promised_bytes:
            shape = " x ".join(map(str, sizes))
            held = f"more than {promised_bytes}" if len(data) > promised_bytes else len(data)
            raise DataError(f"{path} should have {shape} bytes by its header, and has {held}. Download it again.")
    return np.frombuffer(data, np.uint8).reshape(sizes)


def _read_at_most(read: Callable[[int], bytes], limit_bytes: int) -> bytearray:
    """What a file holds, up to a limit; only as much room is made as is filled."""
    data = bytearray()
    while len(data) < limit_bytes and (chunk := read(min(CHUNK_BYTES, limit_bytes - len(data)))):
        data += chunk
    return data


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say plainly that a file of arrays is damaged, whatever its reader raises."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0].rstrip(".")
        raise DataError(f"{path} can't be read: {reason}. Make or download it again.") from error
