"""Find the image files to predict, and decode them in threads while the model computes."""

from __future__ import annotations

import glob
import itertools
import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
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
    EncodedImage,
    ImageReader,
    InputFormat,
    Mode,
    convert_image,
    decode_image,
    read_file,
)
from lamina.data.formats import SUFFIXES
from lamina.data.images import EMPTY_FOLDER, Dataset, Images, Problem
from lamina.data.sources.archive import UNPACKED, is_archive, unpack
from lamina.data.sources.class_folders import check_image, is_hidden, scan_folder
from lamina.data.sources.table import is_table
from lamina.errors import DataError, describe_type

ImageLike: TypeAlias = str | Path | EncodedImage | bytes | Image.Image | np.ndarray | TensorLike
"""A path, the bytes of an encoded file, a PIL image, or uint8 pixels (H, W) or (H, W, C) of any
size."""

_Search: TypeAlias = tuple[list[EncodedImage], list[Problem]]

IMAGES = "paths, bytes, PIL images or arrays"
CHUNK_IMAGES = 256
CHUNK_BYTES = 64 * 2**20  # of decoded pixels: a chunk of large images has fewer than CHUNK_IMAGES
THREAD_IMAGES = 16


class Chunk(NamedTuple):
    """Decoded images; for each, a reason why decoding failed, or ``None``."""

    names: list[str]
    pixels: Pixels
    reasons: list[str | None]


def find_images(inputs: Sequence[str | Path], stack: ExitStack) -> _Search:
    """The images in files, folders, patterns, archives and tables, in order, and the problems.

    Each image occurs once. The function unpacks archives and tables that contain images into
    folders that ``stack`` removes.
    """
    if "" in inputs:
        raise DataError(
            "The path of an image is empty. Pass a file or a folder; . is the current folder."
        )
    images: dict[str, EncodedImage] = {}
    problems: list[Problem] = []
    for path in map(Path, inputs):
        listed, unread = _search(path, stack)
        problems += unread
        for image in listed:
            # Path.resolve would follow links
            images.setdefault(os.path.abspath(image.name), image)  # noqa: PTH100
    return list(images.values()), problems


def decode_ahead(images: Iterable[ImageLike], wanted: InputFormat) -> Generator[Chunk, None, None]:
    """The images in chunks, decoded one chunk ahead; close the generator if you stop early."""
    size = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // math.prod(wanted.shape)))
    rest = iter(images)
    first = 0
    waiting = None
    with ImageReader() as reader:
        decode = partial(_decode_some, wanted=wanted, reader=reader)
        pool = ThreadPoolExecutor(os.cpu_count())  # starts its threads on demand
        try:
            while chunk := list(itertools.islice(rest, size)):
                starts = range(0, len(chunk), THREAD_IMAGES)
                parts = [chunk[start : start + THREAD_IMAGES] for start in starts]
                # starting a thread takes as long as decoding a few images
                is_short = len(chunk) < min(size, THREAD_IMAGES + 1)
                decoded = map(decode, parts) if is_short else pool.map(decode, parts)
                if waiting is not None:
                    yield _gather(*waiting, wanted.shape)
                waiting = (chunk, first, decoded)
                first += len(chunk)
            if waiting is not None:
                yield _gather(*waiting, wanted.shape)
        finally:
            pool.shutdown(cancel_futures=True)


def list_images(
    images: ImageLike | Iterable[ImageLike], shape: tuple[int, ...]
) -> Iterable[ImageLike]:
    """The images one by one; ``shape`` decides whether an array is (H, W, C) or gray (N, H, W)."""
    if isinstance(images, str | Path | EncodedImage | bytes | Image.Image):
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
    is_single = array.ndim == 2
    if array.ndim == 3:
        has_channels = array.shape[2] in (*CHANNELS, channels)
        is_single = has_channels and array.shape[1:] != (height, width)
        may_be_single = array.shape[0] == channels > 1 and array.shape[2] not in CHANNELS
        if may_be_single and not is_single:
            raise DataError(
                f"images of shape {array.shape} are ambiguous: one image with channels first, or"
                f" {channels} gray images. Use np.asarray(images).transpose(1, 2, 0) for one image,"
                " or images[..., None] for gray images."
            )
    if is_single:
        array = array[None]
    pixels = to_pixels(array, "images")
    return pixels if pixels.shape[1:] == (height, width, channels) else list(pixels)


def _gather(
    images: Sequence[ImageLike],
    first: int,
    decoded: Iterable[list[ImagePixels | str]],
    shape: tuple[int, ...],
) -> Chunk:
    channels, height, width = shape
    results = list(itertools.chain.from_iterable(decoded))
    rows = [result for result in results if not isinstance(result, str)]
    pixels = np.stack(rows) if rows else np.empty((0, height, width, channels), np.uint8)
    names = [_name_image(image, place) for place, image in enumerate(images, first)]
    reasons = [result if isinstance(result, str) else None for result in results]
    return Chunk(names, pixels, reasons)


def _name_image(image: ImageLike, place: int) -> str:
    if isinstance(image, EncodedImage):
        return image.name
    return str(image) if isinstance(image, str | Path) else f"image {place}"


def _decode_some(
    images: Sequence[ImageLike], wanted: InputFormat, reader: ImageReader
) -> list[ImagePixels | str]:
    decoded: list[ImagePixels | str] = []
    for image in images:
        try:
            decoded.append(_decode(image, wanted, reader))
        except BadImageError as error:
            decoded.append(str(error))
    return decoded


def _decode(image: ImageLike, wanted: InputFormat, reader: ImageReader) -> ImagePixels:
    channels, height, width = wanted.shape
    if isinstance(image, TensorLike):
        image = to_array(image, "image")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
            raise BadImageError(
                f"expected uint8 pixels (H, W) or (H, W, C), got {image.dtype} of shape"
                f" {image.shape}"
            )
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.shape == (height, width, channels):
            return pixels
        if pixels.shape[2] not in (1, 3, 4):
            if pixels.shape[0] in (1, 3):
                raise BadImageError(
                    f"expected channels last, got shape {pixels.shape}: use .transpose(1, 2, 0)"
                )
            raise BadImageError(f"expected 1, 3 or 4 channels, got {pixels.shape[2]}")
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if channels not in (1, 3):
        raise BadImageError(f"the model expects {channels} channels, but image files have 1 or 3")
    mode: Mode = "L" if channels == 1 else "RGB"
    if isinstance(image, Image.Image):
        return convert_image(image, (height, width), mode, wanted.resize, wanted.bit_depth)
    if isinstance(image, EncodedImage):
        data = reader.read(image)
    elif isinstance(image, bytes):
        data = image
    elif isinstance(image, str | Path):
        data = read_file(Path(image))
    else:
        raise DataError(f"images must be {IMAGES}, but one of them is {describe_type(image)}.")
    return decode_image(data, (height, width), mode, wanted.resize, wanted.bit_depth)


def _search(path: Path, stack: ExitStack) -> _Search:
    try:
        images, problems = _list_images(path, stack)
    except (DataError, OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path} ")  # the problem names it
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        return [], [Problem(str(path), reason)]
    if not images:
        problems.append(Problem(str(path), "no images found"))
    return images, problems


def _list_images(path: Path, stack: ExitStack) -> _Search:
    # before Python 3.12, Path.is_dir raises for a name that is too long
    if os.path.isdir(path):  # noqa: PTH112
        return _list_folder(path, path)
    if not os.path.exists(path) and glob.has_magic(str(path)):  # noqa: PTH110
        return _list_matches(str(path))
    path.stat()
    is_image = path.name.lower().endswith(SUFFIXES) or not path.is_file()
    if is_image or not (is_table(path) or is_archive(path)):
        return [EncodedImage(str(path), str(path))], []
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="lamina-")))
    if is_table(path):
        return _list_table(path, folder)
    unpacked = folder / UNPACKED
    left_out = unpack(path, unpacked, lambda *_: None)
    images, problems = _list_folder(unpacked, path)
    return images, [*_name_problems(path, left_out), *problems]


def _list_folder(folder: Path, source: Path) -> _Search:
    """The images below a folder, with names in the source that it was unpacked from."""
    scan = scan_folder(folder)
    images = [EncodedImage(str(source / name), str(folder / name)) for name in scan.names]
    problems = [problem for problem in scan.unused if problem.reason != EMPTY_FOLDER]
    return images, _name_problems(source, [*scan.problems, *problems])


def _list_matches(pattern: str) -> _Search:
    images: list[EncodedImage] = []
    problems: list[Problem] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207
        if match.is_dir():
            listed, unread = _list_folder(match, match)
            images += listed
            problems += unread
        elif not is_hidden(match.name):
            try:
                check_image(str(match))
                images.append(EncodedImage(str(match), str(match)))
            except BadImageError as error:
                problems.append(Problem(str(match), str(error)))
    if not images and not problems:
        raise DataError("no image matches this pattern")
    return images, problems


def _list_table(path: Path, spool: Path) -> _Search:
    # polars is slow to import
    from lamina.data.sources.frames import list_encoded, list_problems
    from lamina.data.sources.rows import list_table

    frame = list_table(path, spool)
    images: list[EncodedImage] = []
    for image in list_encoded(frame.filter(frame["reason"].is_null())):
        is_spooled = image.offset_bytes is not None
        name = path / image.name if is_spooled else Path(image.file)
        images.append(image._replace(name=str(name)))
    return images, _name_problems(path, list_problems(frame))


def _name_problems(source: Path, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(str(source / problem.path), problem.reason) for problem in problems]
