"""Decode many images in threads, and write their pixels one after another into a file."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from lamina.data.arrays import ImagePixels
from lamina.data.cache import format_size
from lamina.data.decoding import BadImageError, Size, decode_and_measure, fit_pixels, read_file
from lamina.data.images import CONFLICT, COPY, Progress
from lamina.data.preparation import Resize
from lamina.data.sources.interface import show_name
from lamina.data.splits import Split
from lamina.errors import DataError

MIXED_SIZES_SIDE_PX = 64
OWN_SIZE_LIMIT_PX = 256  # full camera photographs exceed what nets can use and memory can hold
SAMPLE_IMAGES = 32
SAMPLED_SIZE = (8, 8)  # a JPEG is then decoded at an eighth of its size
SMALL_BYTES = 8_000  # threads wait for each other longer than they take to decode smaller files
IMAGES_PER_TASK = 16
TASK_BYTES = 2**22  # of decoded pixels
TASKS_AHEAD = 4  # for each thread

Place: TypeAlias = tuple[bytes, int | None, int | None]
"""An encoded image: a file and, if it holds many images, the offset and size in bytes."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class SizesDifferError(Exception):
    """An image differs in size from earlier images, and no size was given."""


class Held(NamedTuple):
    """The split of an image, whether lamina drew it, and the target as bytes."""

    split: Split
    is_drawn: bool
    target: bytes


class Stored(NamedTuple):
    """What is stored of an image beside its pixels, or the reason why it is left out."""

    content: str  # digest of the encoded bytes, or of the pixels before resizing
    reason: str | None = None
    height_px: int = 0  # as stored
    width_px: int = 0
    digest: bytes | None = None  # of the pixels


Row: TypeAlias = tuple[Stored, ImagePixels | None]


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, per_task: int
) -> Generator[Result, None, None]:
    """The result for each item, computed a few tasks ahead; close it if you stop early."""
    if threads == 1:
        yield from map(function, items)
        return
    rest = iter(items)
    waiting: deque[Future[list[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        while task := list(itertools.islice(rest, per_task)):
            waiting.append(pool.submit(_map_all, function, task))
            if len(waiting) > TASKS_AHEAD * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _map_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def store_files(
    places: Sequence[Place],
    held: Sequence[Held],
    file: Path,
    size_px: int | None,
    resize: Resize,
    progress: Progress,
) -> tuple[list[Stored], Size, int | None]:
    """Decode images to RGB into ``file``; see :func:`write_pixels`.

    Also returns their size, and the side of the squares that they were resized to, ``None`` if they
    kept their size.
    """
    own_size = find_own_size(places) if size_px is None else None
    side_px = size_px or MIXED_SIZES_SIDE_PX
    if own_size is not None:
        with suppress(SizesDifferError), closing(decode_files(places, None, resize)) as images:
            return write_pixels(images, held, file, (*own_size, 3), progress), own_size, None
    size = (side_px, side_px)
    with closing(decode_files(places, size, resize)) as images:
        return write_pixels(images, held, file, (*size, 3), progress), size, side_px


def find_own_size(places: Sequence[Place]) -> Size | None:
    """The height and width of images that can keep them, judged by a sample."""
    sizes: set[Size] = set()
    step = -(-len(places) // SAMPLE_IMAGES)
    spread = itertools.chain.from_iterable(places[start::step] for start in range(step))
    sampled = 0
    for file, *span in spread:
        with suppress(BadImageError):
            decoded = decode_and_measure(read_file(os.fsdecode(file), *span), SAMPLED_SIZE)
            sizes.add((decoded.height_px, decoded.width_px))
            sampled += 1
        if sampled == SAMPLE_IMAGES or len(sizes) > 1:
            break
    if len(sizes) != 1:
        return None
    (size,) = sizes
    return size if max(size) <= OWN_SIZE_LIMIT_PX else None


def decode_files(
    places: Sequence[Place], size: Size | None, resize: Resize
) -> Generator[Row, None, None]:
    """Decode images in order, in threads if their files are large enough."""
    decode = partial(_decode_file, size=size, resize=resize)
    size_bytes = sum(size_bytes or 0 for _, _, size_bytes in places)
    threads = count_cores()
    if size_bytes < SMALL_BYTES * len(places):
        threads = 1
    height, width = size or (OWN_SIZE_LIMIT_PX, OWN_SIZE_LIMIT_PX)
    per_task = max(1, min(IMAGES_PER_TASK, TASK_BYTES // (3 * height * width)))
    return map_ahead(decode, places, threads, per_task)


def _decode_file(place: Place, size: Size | None, resize: Resize) -> Row:
    file, *span = place
    data = b""
    try:
        data = read_file(os.fsdecode(file), *span)
        pixels, height_px, width_px = decode_and_measure(data, size, resize=resize)
    except BadImageError as error:
        return Stored(_digest(data).hex(), show_name(str(error))), None
    digest = _digest(pixels.tobytes())
    return Stored(_digest(data).hex(), None, height_px, width_px, digest), pixels


def fit_arrays(images: Iterable[ImagePixels], size_px: int | None, resize: Resize) -> Iterator[Row]:
    """Resize images that are decoded already."""
    for image in images:
        height_px, width_px, _ = image.shape
        content = _digest(image.tobytes()).hex()
        pixels = image if size_px is None else fit_pixels(image[None], size_px, resize)[0]
        yield Stored(content, None, height_px, width_px, _digest(pixels.tobytes())), pixels


def write_pixels(
    images: Iterable[Row],
    held: Sequence[Held],
    file: Path,
    shape: tuple[int, ...],
    progress: Progress,
) -> list[Stored]:
    """Write pixels of one shape one after another; return what else is stored.

    Held-out splits come first. Images that are identical to an image of an earlier split that
    lamina drew are left out.
    """
    check_space(file.parent, len(held) * math.prod(shape))
    first_of: dict[bytes, Held] = {}
    results: list[Stored] = []
    with file.open("wb") as opened:
        for place, (stored, pixels) in zip(held, images, strict=True):
            reason = stored.reason
            if pixels is not None and stored.digest is not None:
                if pixels.shape != shape:
                    raise SizesDifferError
                first = first_of.get(stored.digest, place)
                if first.split != place.split:
                    reason = COPY if first.target == place.target else CONFLICT
                else:
                    opened.write(pixels.tobytes())
                if place.is_drawn and place.split != "train":
                    first_of.setdefault(stored.digest, place)
            results.append(stored._replace(reason=reason))
            if len(results) % IMAGES_PER_TASK == 0 or len(results) == len(held):
                progress(len(results), len(held))
    return results


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``DataError`` if the disk has too little space."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DataError(
            f"The decoded images need {format_size(needed_bytes)}, but {folder.parent} has"
            f" {format_size(free_bytes)} free.",
            remedy="Use a smaller --size (in Python, size_px), or set LAMINA_CACHE to a folder with"
            " more space.",
        )


def count_cores() -> int:
    """The number of cores that this process may use, at least one."""
    quota = math.inf
    with suppress(OSError, ValueError):  # of a container; "max" without a limit
        ticks, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        quota = int(ticks) / int(period)
    return max(1, int(min(quota, len(list_processors()))))


def list_processors() -> set[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
