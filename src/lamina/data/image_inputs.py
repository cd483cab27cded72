"""Find the image files to predict, and decode them in threads while the model computes."""

from __future__ import annotations

import glob
import itertools
import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from lamina.data.arrays import (
    CHANNELS,
    ImagePixels,
    Pixels,
    TensorLike,
    to_array,
    to_pixels,
)
from lamina.data.decoding import (
    BadImageError,
    InputFormat,
    Mode,
    convert_image,
    decode_image,
    read_file,
)
from lamina.data.images import EMPTY_FOLDER, Dataset, Images, Problem
from lamina.data.pixels import count_cores, map_ahead
from lamina.data.sources.scan import check_image, is_hidden, scan_folder
from lamina.errors import DataError, describe_type

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | TensorLike
"""A path, the bytes of an encoded file, a PIL image, or uint8 pixels (H, W) or (H, W, C) of any
size."""

IMAGES = "paths, bytes, PIL images or arrays"
CHUNK_IMAGES = 256
CHUNK_BYTES = 64 * 2**20  # of decoded pixels: a chunk of large images has fewer than CHUNK_IMAGES
THREAD_IMAGES = 16


class Chunk(NamedTuple):
    """Decoded images; for each, a reason why decoding failed, or ``None``."""

    names: list[str]
    pixels: Pixels
    reasons: list[str | None]


def find_images(inputs: Sequence[str | Path]) -> tuple[list[Path], list[Problem]]:
    """The images in files, folders and patterns, in order and each once, and the problems."""
    if "" in inputs:
        raise DataError(
            "The path of an image is empty. Pass a file or a folder; . is the current folder."
        )
    images: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in map(Path, inputs):
        try:
            listed, unread = _search(path)
        except (DataError, OSError, ValueError) as error:
            reason = str(error).removeprefix(f"{path} ")  # the problem names it
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror.lower()
            problems.append(Problem(str(path), reason))
            continue
        problems += unread
        if not listed:
            problems.append(Problem(str(path), "no images found"))
        for image in listed:
            # Path.resolve would follow links
            images.setdefault(os.path.abspath(image), image)  # noqa: PTH100
    return list(images.values()), problems


def _search(path: Path) -> tuple[list[Path], list[Problem]]:
    """The images in a file, folder or pattern, and the problems."""
    # before Python 3.12, Path.exists raises for a name that is too long
    is_pattern = glob.has_magic(str(path)) and not os.path.exists(path)  # noqa: PTH110
    matches = [path]
    if is_pattern:
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    images: list[Path] = []
    problems: list[Problem] = []
    for match in matches:
        if os.path.isdir(match):  # noqa: PTH112
            scan = scan_folder(match)
            images += [match / name for name in scan.names]
            problems += [
                Problem(str(match / problem.path), problem.reason)
                for problem in [*scan.problems, *scan.unused]
                if problem.reason != EMPTY_FOLDER
            ]
        elif not is_pattern:
            match.stat()
            images.append(match)
        elif not is_hidden(match.name):
            try:
                check_image(match.name)
                images.append(match)
            except BadImageError as error:
                problems.append(Problem(str(match), str(error)))
    if is_pattern and not images and not problems:
        raise DataError("no image matches this pattern")
    return images, problems


def decode_ahead(images: Iterable[ImageLike], wanted: InputFormat) -> Generator[Chunk, None, None]:
    """The images in chunks, decoded a few ahead; close the generator if you stop early."""
    size = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // math.prod(wanted.shape)))
    channels, height, width = wanted.shape
    rest = iter(images)
    first = list(itertools.islice(rest, THREAD_IMAGES + 1))
    threads = count_cores()
    if len(first) <= THREAD_IMAGES:  # starting a thread takes as long as decoding a few images
        threads = 1
    per_task = max(1, min(THREAD_IMAGES, size // threads))
    decode = partial(_decode_or_explain, wanted=wanted)
    place = 0
    with closing(map_ahead(decode, itertools.chain(first, rest), threads, per_task)) as decoded:
        while chunk := list(itertools.islice(decoded, size)):
            rows = [result for _, result in chunk if not isinstance(result, str)]
            pixels = np.array(rows, np.uint8).reshape(-1, height, width, channels)
            reasons = [result if isinstance(result, str) else None for _, result in chunk]
            names = [name or f"image {number}" for number, (name, _) in enumerate(chunk, place)]
            yield Chunk(names, pixels, reasons)
            place += len(chunk)


def list_images(
    images: ImageLike | Iterable[ImageLike], shape: tuple[int, ...]
) -> Iterable[ImageLike]:
    """The images one by one; ``shape`` decides whether an array is (H, W, C) or gray (N, H, W)."""
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | TensorLike):
        return _divide(to_array(images, "images"), shape)
    if isinstance(images, Images | Dataset | Mapping) or not isinstance(images, Iterable):
        raise DataError(
            f"images must be {IMAGES}, got {describe_type(images)}. Pass a list of images, or the"
            " pixels of a data set, such as dataset.test.pixels."
        )
    return images


def _divide(array: np.ndarray, shape: tuple[int, ...]) -> Iterable[ImageLike]:
    channels, height, width = shape
    if array.dtype.kind not in "biuf":
        paths: list[str | Path] = array.tolist()
        return paths
    is_image = array.ndim == 3 and array.shape[2] in (*CHANNELS, channels)
    if array.ndim == 2 or (is_image and array.shape[1:] != (height, width)):
        array = array[None]
    pixels = to_pixels(array, "images")
    return pixels if pixels.shape[1:] == (height, width, channels) else list(pixels)


def _decode_or_explain(image: ImageLike, wanted: InputFormat) -> tuple[str, ImagePixels | str]:
    """The path of an image, empty if it has none, and its pixels, or why it cannot be decoded."""
    name = str(image) if isinstance(image, str | Path) else ""
    try:
        return name, _decode(image, wanted)
    except BadImageError as error:
        return name, str(error)


def _decode(image: ImageLike, wanted: InputFormat) -> ImagePixels:
    channels, height, width = wanted.shape
    if isinstance(image, TensorLike):
        image = to_array(image, "image")
    if isinstance(image, np.ndarray):
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.dtype == np.uint8 and pixels.shape == (height, width, channels):
            return pixels
        is_usable = image.dtype == np.uint8 and pixels.ndim == 3 and image.size > 0
        if not is_usable or pixels.shape[2] not in CHANNELS:
            raise BadImageError(
                "expected uint8 pixels (H, W) or (H, W, C) with 1, 3 or 4 channels, got"
                f" {image.dtype} of shape {image.shape}"
            )
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if channels not in (1, 3):
        raise BadImageError(f"the model expects {channels} channels, but image files have 1 or 3")
    mode: Mode = "L" if channels == 1 else "RGB"
    if isinstance(image, Image.Image):
        return convert_image(image, (height, width), mode, wanted.resize)
    if not isinstance(image, bytes | str | Path):
        raise DataError(f"images must be {IMAGES}, but one of them is {describe_type(image)}.")
    data = image if isinstance(image, bytes) else read_file(image)
    return decode_image(data, (height, width), mode, wanted.resize)
