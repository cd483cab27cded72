"""Decode many images into one uint8 array; each worker process writes its rows of the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl

from lamina.data.cache import format_size, read_shape
from lamina.data.decoding import (
    BadImageError,
    DeepImageError,
    EncodedImage,
    ImageReader,
    decode_and_measure,
    decode_image,
    fit_pixels,
    measure_bits,
)
from lamina.data.digests import digest_rows
from lamina.data.images import Progress
from lamina.data.preparation import Resize
from lamina.data.sources.listing import Pixels, show_name
from lamina.errors import DataError

MIXED_SIZES_SIDE_PX = 64
OWN_SIZE_LIMIT_PX = 256  # full camera photographs exceed what nets can use and memory can hold
SAMPLE_IMAGES = 32
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
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


DECODED: dict[str, Any] = {
    "row": pl.Int64,  # in pixels.npy
    "content": pl.String,  # digest of the encoded bytes, or of the pixels before they were resized
    "reason": pl.String,  # why decoding failed
    "height_px": pl.Int32,  # as stored
    "width_px": pl.Int32,
    "digest": pl.String,  # of the row's pixels
}
"""The columns that decoding adds."""


class _SizesDifferError(Exception):
    """An image differs in size from those before it, and no size was given."""


class _Job(NamedTuple):
    """One worker's images, their rows in ``folder/pixels.npy``, and the file for its results."""

    images: list[EncodedImage]
    rows: list[int]
    folder: str
    result_file: str
    resize: Resize | None
    bit_depth: int | None
    is_depth_given: bool


def decode_images(
    images: Sequence[EncodedImage],
    folder: Path,
    size_px: int | None,
    resize: Resize,
    progress: Progress,
    bit_depth: int | None = None,
) -> tuple[pl.DataFrame, int | None, int | None]:
    """Decode images to RGB into ``folder/pixels.npy``.

    Returns a row for each image with the columns ``DECODED``, the size (``None`` if all kept
    theirs), and the bit depth of the images of more than 8 bits (``None`` if there are none).
    """
    depth = _sample_depth(images)
    if depth is not None and bit_depth is not None:
        depth = bit_depth
    own_size = _find_own_size(images) if size_px is None else None
    while True:
        if own_size is None:
            size_px = size_px or MIXED_SIZES_SIDE_PX
            size = size_px, size_px
        else:
            size = own_size
        whole = _Job(
            images=[],
            rows=[],
            folder=str(folder),
            result_file="",
            resize=None if own_size else resize,
            bit_depth=depth,
            is_depth_given=bit_depth is not None,
        )
        try:
            decoded = _decode_at(size, whole, images, progress)
            return decoded, size_px, depth
        except _SizesDifferError:
            own_size = None
        except DeepImageError as error:
            depth = error.bits if bit_depth is None else bit_depth


def _decode_at(
    size: tuple[int, int], whole: _Job, images: Sequence[EncodedImage], progress: Progress
) -> pl.DataFrame:
    folder = Path(whole.folder)
    start_array(folder / "pixels.npy", (len(images), *size, 3))
    jobs = []
    for number, rows in enumerate(_share_out(len(images), count_workers(images))):
        part = [images[row] for row in rows]
        result_file = str(folder / f"result-{number}.json")
        jobs.append(whole._replace(images=part, rows=rows, result_file=result_file))
    done = 0
    for count in _decode_here(jobs[0]) if len(jobs) == 1 else _decode_in_workers(jobs, folder):
        done += count
        progress(done, len(images))
    results: list[list[object]] = []
    for job in jobs:
        results += json.loads(Path(job.result_file).read_text("utf-8"))
        Path(job.result_file).unlink()
    decoded = _frame_decoded(results)
    if decoded["reason"].null_count() == 0:
        first = f"{images[0].name} ({decoded['reason'][0]})"
        raise DataError(
            f"Cannot read any of the {len(images)} images; the first is {first}. Check the files."
        )
    return decoded


def _frame_decoded(results: Sequence[Sequence[object]]) -> pl.DataFrame:
    frame = pl.DataFrame(results, schema=DECODED, orient="row").sort("row")
    return frame.with_columns(pl.col("digest").str.decode("hex"))


def store_pixels(pixels: Pixels, folder: Path, size_px: int | None, resize: Resize) -> pl.DataFrame:
    """Store decoded images in ``folder/pixels.npy``; the frame is as of :func:`decode_images`."""
    count, height, width, channels = pixels.shape
    size = (height, width) if size_px is None else (size_px, size_px)
    file = folder / "pixels.npy"
    offset_bytes = start_array(file, (count, *size, channels))
    results: list[list[object]] = []
    with file.open("r+b") as rows:
        rows.seek(offset_bytes)
        for block in pixels.blocks():
            fitted = np.ascontiguousarray(
                block if size_px is None else fit_pixels(block, size_px, resize)
            )
            rows.write(fitted.data)
            digests = digest_rows(fitted)
            contents = digests if size_px is None else digest_rows(block)
            for content, digest in zip(contents, digests, strict=True):
                row = len(results)
                results.append(
                    [row, bytes(content).hex(), None, height, width, bytes(digest).hex()]
                )
    return _frame_decoded(results)


def count_workers(images: Sequence[EncodedImage]) -> int:
    """One worker per core, fewer if there is little to decode."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    stored_bytes = sum(image.size_bytes for image in images)
    wanted = max(len(images) // IMAGES_PER_WORKER, stored_bytes // BYTES_PER_WORKER)
    return max(1, min(cores, len(images), wanted))


def _share_out(count: int, workers: int) -> list[list[int]]:
    """Distribute ``count`` images over workers, block by block in turn."""
    blocks = [
        range(start, min(start + IMAGES_PER_BLOCK, count))
        for start in range(0, count, IMAGES_PER_BLOCK)
    ]
    shares = [
        [row for block in blocks[number::workers] for row in block] for number in range(workers)
    ]
    return [rows for rows in shares if rows]


def _spread(images: Sequence[EncodedImage]) -> Iterator[EncodedImage]:
    """The images, evenly spaced ones first."""
    step = -(-len(images) // SAMPLE_IMAGES)
    return chain.from_iterable(images[start::step] for start in range(step))


def _find_own_size(images: Sequence[EncodedImage]) -> tuple[int, int] | None:
    """The common size of a few images, unless it is too large; ``None`` if they differ."""
    sizes: set[tuple[int, int]] = set()
    with ImageReader() as reader:
        for count, image in enumerate(_spread(images), 1):
            with contextlib.suppress(BadImageError):
                height, width, _ = decode_image(reader.read(image), bit_depth=16).shape
                sizes.add((height, width))
            if len(sizes) > 1 or (sizes and count >= SAMPLE_IMAGES):
                break
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    return size if max(size) <= OWN_SIZE_LIMIT_PX else None


def _sample_depth(images: Sequence[EncodedImage]) -> int | None:
    """The lowest bit depth for a few evenly spaced images; ``None`` if all store 8 bits."""
    depths = []
    with ImageReader() as reader:
        for image in islice(_spread(images), SAMPLE_IMAGES):
            with contextlib.suppress(BadImageError):
                depth = measure_bits(reader.read(image))
                if depth is not None:
                    depths.append(depth)
    return max(depths, default=None)


def _decode_here(job: _Job) -> Iterator[int]:
    """Decode the images of a job into their rows; yield how many since the last yield."""
    results: list[list[object]] = []
    with Path(job.folder, "pixels.npy").open("r+b") as rows, ImageReader() as reader:
        _, height, width, channels = read_shape(rows)
        offset_bytes = rows.tell()
        row_bytes = height * width * channels
        size = None if job.resize is None else (height, width)
        for count, (row, image) in enumerate(zip(job.rows, job.images, strict=True)):
            if count % IMAGES_PER_BLOCK == 0:
                if count:
                    yield IMAGES_PER_BLOCK
                rows.seek(offset_bytes + row * row_bytes)
            data = b""
            try:
                data = reader.read(image)
                pixels, stored_size_px = decode_and_measure(
                    data, size, resize=job.resize or "crop", bit_depth=job.bit_depth
                )
                if pixels.shape != (height, width, channels):
                    raise _SizesDifferError
                written = pixels.tobytes()
                results.append([row, _digest(data), None, *stored_size_px, _digest(written)])
            except BadImageError as error:
                is_deep = isinstance(error, DeepImageError)
                if is_deep and (job.bit_depth is None or not job.is_depth_given):
                    raise
                written = bytes(row_bytes)
                results.append([row, _digest(data), show_name(str(error)), 0, 0, ""])
            rows.write(written)
    Path(job.result_file).write_text(json.dumps(results), "utf-8")
    yield (len(job.rows) - 1) % IMAGES_PER_BLOCK + 1


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _decode_in_workers(jobs: Sequence[_Job], folder: Path) -> Iterator[int]:
    """Decode each job in a process; yield how many images are done, and leave no process behind."""
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
                    with job_file.open("rb") as given:
                        workers.append(
                            # lamina's own interpreter and code
                            subprocess.Popen(  # noqa: S603
                                [sys.executable, "-P", "-c", code],
                                stdin=given,
                                stdout=output,
                                stderr=errors,
                                env=KEPT_MEMORY | os.environ,
                            )
                        )
                    job_file.unlink()  # the worker has it open
            for line in lines:
                event, count = line.split()
                if event == "sizes":
                    raise _SizesDifferError
                if event == "bits":
                    raise DeepImageError(int(count), "")
                yield int(count)
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
        raise DataError(
            f"A process that decodes images failed (status {status}{', ' + last if last else ''}),"
            " and nothing was stored. Try again, and close other programs if memory is short."
        )


def work() -> None:
    """Run the job on standard input: the main function of a worker process."""
    images, *others = json.load(sys.stdin)
    try:
        for count in _decode_here(_Job([EncodedImage(*fields) for fields in images], *others)):
            sys.stdout.write(f"done {count}\n")
            sys.stdout.flush()
    except _SizesDifferError:
        sys.stdout.write("sizes 0\n")
    except DeepImageError as error:
        sys.stdout.write(f"bits {error.bits}\n")
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
            f" {format_size(free_bytes)} free. Use a smaller --size (in Python, size_px), or set"
            " LAMINA_CACHE to a folder with more space."
        )
    return offset_bytes


def keep_rows(path: Path, kept: Sequence[int]) -> None:
    """Keep these rows of an array file, in this order, one by one, as it may exceed memory."""
    with path.open("rb") as rows:
        _, *row_shape = read_shape(rows)
        offset_bytes = rows.tell()
        row_bytes = math.prod(row_shape)
        shape = (len(kept), *row_shape)
        # the disk may not hold two copies
        in_place = all(first < second for first, second in pairwise(kept))
        target = path if in_place else path.with_suffix(".kept")
        if not in_place:
            start_array(target, shape)
        with target.open("r+b") as file:
            # numpy pads headers, so that the number of rows can change in place.
            _write_header(file, shape)
            for row, place in enumerate(kept):
                if not in_place or row != place:
                    rows.seek(offset_bytes + place * row_bytes)
                    file.seek(offset_bytes + row * row_bytes)
                    file.write(rows.read(row_bytes))
            file.truncate(offset_bytes + len(kept) * row_bytes)
    target.replace(path)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.tell()
