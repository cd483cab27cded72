"""Decode many images into one uint8 array; each worker process writes its rows of the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from lamina.data.arrays import ImagePixels
from lamina.data.cache import FULL_DISK, format_size, read_shape
from lamina.data.decoding import (
    BadImageError,
    EncodedImage,
    ImageReader,
    count_bits,
    decode_and_measure,
    fit_pixels,
)
from lamina.data.images import Progress
from lamina.data.preparation import Resize
from lamina.data.resizing import Size
from lamina.data.sources.listing import show_name
from lamina.errors import DataError

if TYPE_CHECKING:
    import polars as pl

MIXED_SIZES_SIDE_PX = 64
OWN_SIZE_LIMIT_PX = 256  # full camera photographs exceed what nets can use and memory can hold
SAMPLE_IMAGES = 32
SAMPLED_SIZE = (8, 8)  # a JPEG is then decoded at an eighth of its size
MOST_BITS = 16
# A worker takes a third of a second to start, as long as it takes to decode this many small images
# or bytes.
IMAGES_PER_WORKER = 1000
BYTES_PER_WORKER = 12 * 2**20
# Workers take turns with blocks of this size, because one class may have larger images than
# another.
IMAGES_PER_BLOCK = 50
# Keeps glibc from returning the memory of each image to the system, which saves a tenth of the time
# at 224 px.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "100000000", "MALLOC_TRIM_THRESHOLD_": "100000000"}


class _SizesDifferError(Exception):
    """An image differs in size from earlier images, and no size was given."""


class _Job(NamedTuple):
    """One worker's images, and their rows in ``folder/pixels.npy``."""

    folder: str
    resize: Resize | None
    bit_depth: int | None
    images: Sequence[EncodedImage] = ()
    rows: Sequence[int] = ()


def decode_images(
    images: Sequence[EncodedImage],
    folder: Path,
    size_px: int | None,
    resize: Resize,
    progress: Progress,
    bit_depth: int | None = None,
) -> tuple[pl.DataFrame, int | None, int | None]:
    """Decode images to RGB into ``folder/pixels.npy``.

    Returns the frame of ``_frame_decoded``, the size (``None`` if all images kept theirs), and the
    bit depth of the images of more than 8 bits (``None`` if there are none).
    """
    sizes, depth = _sample(images)
    keeps_size = size_px is None and len(sizes) == 1 and max(*sizes[0]) <= OWN_SIZE_LIMIT_PX
    depth = bit_depth or depth
    side_px = size_px or MIXED_SIZES_SIDE_PX
    while True:
        size = sizes[0] if keeps_size else (side_px, side_px)
        job = _Job(str(folder), None if keeps_size else resize, depth)
        try:
            decoded = _decode_at(size, job, images, progress)
        except _SizesDifferError:
            keeps_size = False
            continue
        values = decoded["largest"].drop_nulls().to_list()
        needed = None
        if values:
            needed = bit_depth or count_bits(max(values))
        if needed in (None, depth):
            return decoded, None if keeps_size else side_px, needed
        depth = needed  # images that were not sampled have larger values


def _decode_at(
    size: Size, job: _Job, images: Sequence[EncodedImage], progress: Progress
) -> pl.DataFrame:
    folder = Path(job.folder)
    start_array(folder / "pixels.npy", (len(images), *size, 3))
    jobs = [
        job._replace(images=[images[row] for row in rows], rows=rows)
        for rows in _share_out(len(images), count_workers(images))
    ]
    results: list[list[object]] = []
    for result in _decode_jobs(jobs, folder):
        results.append(result)
        if len(results) % IMAGES_PER_BLOCK == 0 or len(results) == len(images):
            progress(len(results), len(images))
    decoded = _frame_decoded(results)
    if decoded["reason"].null_count() == 0:
        first = f"{images[0].name} ({decoded['reason'][0]})"
        raise DataError(
            f"Cannot read any of the {len(images)} images; the first is {first}. Check the files."
        )
    return decoded


def _frame_decoded(results: Sequence[Sequence[object]]) -> pl.DataFrame:
    """The result of decoding for each image, in the order of the rows of ``pixels.npy``."""
    import polars as pl  # slow to import, and workers do not need it

    schema: dict[str, Any] = {
        "row": pl.Int64,
        "content": pl.String,  # digest of the encoded bytes, or of the pixels before resizing
        "reason": pl.String,  # why decoding failed
        "height_px": pl.Int32,  # as stored
        "width_px": pl.Int32,
        "digest": pl.String,  # of the row's pixels
        "largest": pl.Int64,  # value, if the image stores more than 8 bits
    }
    frame = pl.DataFrame(results, schema=schema, orient="row").sort("row")
    return frame.with_columns(pl.col("digest").str.decode("hex"))


def store_arrays(
    arrays: Sequence[UInt8[np.ndarray, "_ h w c"]],
    folder: Path,
    size_px: int | None,
    resize: Resize,
) -> pl.DataFrame:
    """Store decoded images in ``folder/pixels.npy``; return a frame like :func:`decode_images`."""
    _, height, width, channels = arrays[0].shape
    size = (height, width) if size_px is None else (size_px, size_px)
    file = folder / "pixels.npy"
    offset_bytes = start_array(file, (sum(map(len, arrays)), *size, channels))
    results: list[list[object]] = []
    with file.open("r+b") as rows:
        rows.seek(offset_bytes)
        for image in chain.from_iterable(map(_iter_images, arrays)):
            content = written = image.tobytes()
            if size_px is not None:
                written = fit_pixels(image[None], size_px, resize).tobytes()
            rows.write(written)
            digests = (_digest(content), None, height, width, _digest(written), None)
            results.append([len(results), *digests])
    return _frame_decoded(results)


def _iter_images(array: UInt8[np.ndarray, "_ h w c"]) -> Iterator[ImagePixels]:
    for start in range(0, len(array), IMAGES_PER_BLOCK):
        block = array
        if isinstance(array, np.memmap):
            order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
            # mapped anew, so that earlier images leave the memory
            block = np.memmap(array.filename or "", np.uint8, "r", array.offset, array.shape, order)
        yield from block[start : start + IMAGES_PER_BLOCK]


def count_cores() -> int:
    """The number of cores that this process may use, at least one."""
    quota = math.inf
    with contextlib.suppress(OSError, ValueError):  # of a container; "max" without a limit
        ticks, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        quota = int(ticks) / int(period)
    return max(1, int(min(quota, len(list_processors()))))


def list_processors() -> set[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def count_workers(images: Sequence[EncodedImage]) -> int:
    """One worker per core, fewer if there is little to decode."""
    stored_bytes = sum(image.size_bytes for image in images)
    wanted = max(len(images) // IMAGES_PER_WORKER, stored_bytes // BYTES_PER_WORKER)
    return max(1, min(count_cores(), len(images), wanted))


def _share_out(count: int, workers: int) -> list[list[int]]:
    """Distribute the rows of images over workers, block by block in turn."""
    rows = np.arange(count)
    turns = rows // IMAGES_PER_BLOCK % workers
    shares = [rows[turns == number].tolist() for number in range(workers)]
    return [share for share in shares if share]


def _sample(images: Sequence[EncodedImage]) -> tuple[list[Size], int | None]:
    """The sizes of a few images, and the lowest bit depth for images of more than 8 bits."""
    sizes: set[Size] = set()
    depth: int | None = None
    step = -(-len(images) // SAMPLE_IMAGES)
    spread = chain.from_iterable(images[start::step] for start in range(step))
    sampled = 0
    with ImageReader() as reader:
        while sampled < SAMPLE_IMAGES and (image := next(spread, None)):
            with contextlib.suppress(BadImageError):
                data = reader.read(image)
                decoded = decode_and_measure(data, SAMPLED_SIZE, bit_depth=MOST_BITS)
                sizes.add((decoded.height_px, decoded.width_px))
                if decoded.largest is not None:
                    depth = max(depth or 0, count_bits(decoded.largest))
                sampled += 1
    return list(sizes), depth


def _decode_job(job: _Job) -> Iterator[list[object]]:
    """Decode the images of a job into their rows; yield a row of ``_frame_decoded`` for each."""
    with Path(job.folder, "pixels.npy").open("r+b") as file, ImageReader() as reader:
        _, height, width, channels = read_shape(file)
        offset_bytes = file.tell()
        row_bytes = height * width * channels
        size = None if job.resize is None else (height, width)
        for row, image in zip(job.rows, job.images, strict=True):
            if row % IMAGES_PER_BLOCK == 0:
                file.seek(offset_bytes + row * row_bytes)
            data = b""
            try:
                data = reader.read(image)
                pixels, *stored_size_px, largest = decode_and_measure(
                    data, size, resize=job.resize or "crop", bit_depth=job.bit_depth
                )
                if pixels.shape != (height, width, channels):
                    raise _SizesDifferError
                written = pixels.tobytes()
                result = [None, *stored_size_px, _digest(written), largest]
            except BadImageError as error:
                written = bytes(row_bytes)
                result = [show_name(str(error)), 0, 0, "", error.largest]
            file.write(written)
            yield [row, _digest(data), *result]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _decode_jobs(jobs: Sequence[_Job], folder: Path) -> Iterator[list[object]]:
    """Decode each job in a process, but a single job in this one; leave no process behind."""
    if len(jobs) == 1:
        yield from _decode_job(jobs[0])
        return
    # Without multiprocessing, so that a user's script needs no ``if __name__ == "__main__"``. The
    # workers share one pipe; their lines are short enough to be written atomically.
    package = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); from lamina.data.workers import work; work()"
    )
    workers: list[subprocess.Popen[bytes]] = []
    complaints = folder / "workers.txt"
    job_file = folder / "job.json"
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading, "r") as lines:
            with os.fdopen(writing, "w") as output, complaints.open("ab") as errors:
                for job in jobs:
                    job_file.write_text(json.dumps(job), "utf-8")
                    with job_file.open("rb") as opened:
                        worker = subprocess.Popen(  # noqa: S603, lamina's own interpreter and code
                            [sys.executable, "-P", "-c", code],
                            stdin=opened,
                            stdout=output,
                            stderr=errors,
                            env=KEPT_MEMORY | os.environ,
                        )
                    workers.append(worker)
                    job_file.unlink()  # the worker has it open
            for line in lines:
                result = json.loads(line)
                if result is None:
                    raise _SizesDifferError
                yield result
        for worker in workers:
            _check_ended(worker.wait(), complaints)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _check_ended(status: int, complaints: Path) -> None:
    if status in FULL_DISK:
        raise OSError(status, os.strerror(status))
    if status:
        last = complaints.read_text("utf-8", errors="replace").strip().rpartition("\n")[2]
        detail = f", {last}" if last else ""
        raise DataError(
            f"A process that decodes images failed (status {status}{detail}), and nothing was"
            " stored. Try again, and close other programs if memory is short."
        )


def work() -> None:
    """Run the job on standard input: the main function of a worker process.

    Writes a line for each image, or null if its size differs.
    """
    # this process is lamina's own: Pillow warns about damaged EXIF data, which do not affect pixels
    warnings.simplefilter("ignore")
    job = _Job(*json.load(sys.stdin))
    images = [EncodedImage(*fields) for fields in job.images]
    try:
        for result in _decode_job(job._replace(images=images)):
            sys.stdout.write(f"{json.dumps(result)}\n")
            sys.stdout.flush()
    except _SizesDifferError:
        sys.stdout.write("null\n")
    except OSError as error:
        sys.exit(error.errno or 1)


def start_array(path: Path, shape: tuple[int, ...]) -> int:
    """Write a .npy file's header and reserve its rows; return the first row's offset in bytes."""
    needed_bytes = math.prod(shape)
    with path.open("wb") as file:  # the disk allocates nothing yet
        offset_bytes = _write_header(file, shape)
        file.truncate(offset_bytes + needed_bytes)
    if needed_bytes > (free_bytes := shutil.disk_usage(path.parent).free):
        raise DataError(
            f"The decoded images need {format_size(needed_bytes)}, but {path.parent.parent} has"
            f" {format_size(free_bytes)} free.",
            remedy="Use a smaller --size (in Python, size_px), or set LAMINA_CACHE to a folder with"
            " more space.",
        )
    return offset_bytes


def keep_rows(path: Path, places: Sequence[int]) -> None:
    """Keep these rows of an array file, in this order, one by one: the file may exceed memory."""
    with path.open("rb") as rows:
        _, *row_shape = read_shape(rows)
        offset_bytes = rows.tell()
        row_bytes = math.prod(row_shape)
        shape = (len(places), *row_shape)
        # the disk may not hold two copies
        in_place = all(first < second for first, second in pairwise(places))
        target = path if in_place else path.with_suffix(".sorted")
        if not in_place:
            start_array(target, shape)
        with target.open("r+b") as file:
            # numpy pads headers, so that the number of rows can change in place.
            _write_header(file, shape)
            for row, place in enumerate(places):
                if not in_place or row != place:
                    rows.seek(offset_bytes + place * row_bytes)
                    file.seek(offset_bytes + row * row_bytes)
                    file.write(rows.read(row_bytes))
            file.truncate(offset_bytes + len(places) * row_bytes)
    target.replace(path)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.tell()
