"""From many pictures to one uint8 array, in worker processes that each write their own rows of its file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamina.data.dataset import Problem, Progress
from lamina.data.decoding import BadPictureError, Packed, Picture, PictureReader, decode_picture
from lamina.errors import DataError

MIXED_SIZES_SIDE_PX = 64
SAMPLE_PICTURES = 32
# Starting a worker costs about as much as decoding this many small pictures.
PICTURES_PER_WORKER = 1000
PICTURES_PER_REPORT = 50


@dataclass(frozen=True)
class Decoded:
    """What became of the pictures: one row of the array for each index in ``kept``, the rest are problems."""

    kept: list[int]
    problems: list[Problem]
    digests: list[str]
    size_px: int | None


class _SizesDifferError(Exception):
    """A picture has another size than those before it, and none was asked for."""


@dataclass(frozen=True)
class _Job:
    """The pictures of one worker, and the rows of the file that they go to."""

    pictures: list[tuple[str, str, str, Packed | None, tuple[int, int] | None]]
    rows_file: str
    offset_bytes: int
    height: int
    width: int
    fit: bool
    result_file: str


@dataclass(frozen=True)
class _Result:
    """For each picture of a job, a digest of its bytes, and why it could not be decoded: empty where it was."""

    digests: list[str]
    reasons: list[str]


def decode_pictures(pictures: Sequence[Picture], folder: Path, size_px: int | None, progress: Progress) -> Decoded:
    """Decode pictures to RGB into ``folder/pixels.npy``, and tell which could be.

    Without a ``size_px`` pictures that all have one size keep it; else they become squares of 64 px.

    Raises:
        DataError: no picture could be decoded, or the disk has no room for the array.
    """
    if size_px is not None:
        return _decode_at((size_px, size_px), True, pictures, folder, progress, size_px)
    sizes = _sample_sizes(pictures)
    if len(sizes) == 1:
        with contextlib.suppress(_SizesDifferError):
            return _decode_at(sizes.pop(), False, pictures, folder, progress, None)
    side = MIXED_SIZES_SIDE_PX
    return _decode_at((side, side), True, pictures, folder, progress, side)


def _decode_at(
    size: tuple[int, int],
    fit: bool,
    pictures: Sequence[Picture],
    folder: Path,
    progress: Progress,
    size_px: int | None,
) -> Decoded:
    height, width = size
    rows_file = folder / "pixels.npy"
    offset_bytes = _start_array(rows_file, (len(pictures), height, width, 3))
    jobs = []
    workers = max(1, min(os.cpu_count() or 1, len(pictures) // PICTURES_PER_WORKER))
    for number, part in enumerate(np.array_split(np.arange(len(pictures)), workers)):
        chosen = [(one.name, one.file, one.member, one.packed, one.span) for one in pictures[part[0] : part[-1] + 1]]
        start_bytes = offset_bytes + int(part[0]) * height * width * 3
        result_file = str(folder / f"result-{number}.json")
        jobs.append(_Job(chosen, str(rows_file), start_bytes, height, width, fit, result_file))
    reports = _decode_here(jobs[0]) if workers == 1 else _decode_in_workers(jobs, folder)
    done = 0
    for count in reports:
        done += count
        progress(done, len(pictures))
    results = [_Result(**json.loads(Path(job.result_file).read_text("utf-8"))) for job in jobs]
    for job in jobs:
        Path(job.result_file).unlink()
    digests = [digest for result in results for digest in result.digests]
    reasons = [reason for result in results for reason in result.reasons]
    kept = [place for place, reason in enumerate(reasons) if not reason]
    problems = [Problem(one.name, reason) for one, reason in zip(pictures, reasons, strict=True) if reason]
    if not kept:
        raise DataError(
            f"none of the {len(pictures)} pictures could be read; "
            f"the first is {problems[0].path} ({problems[0].reason})."
        )
    if problems:
        _close_gaps(rows_file, kept)
    return Decoded(kept, problems, digests, size_px)


def _sample_sizes(pictures: Sequence[Picture]) -> set[tuple[int, int]]:
    """The sizes (height, width) of a few pictures from the whole range, so that mixed sets are mostly known at once."""
    step = max(1, len(pictures) // SAMPLE_PICTURES)
    sizes: set[tuple[int, int]] = set()
    with PictureReader() as reader:
        for start in range(step):
            for picture in pictures[start::step]:
                with contextlib.suppress(BadPictureError):
                    height, width, _ = decode_picture(reader.read(picture)).shape
                    sizes.add((height, width))
            if sizes:
                break
    return sizes


def _decode_here(job: _Job) -> Iterator[int]:
    """Decode the pictures of a job into its rows; yields how many are done since the last time."""
    digests: list[str] = []
    reasons: list[str] = []
    blank = bytes(job.height * job.width * 3)
    with Path(job.rows_file).open("r+b") as rows, PictureReader() as reader:
        rows.seek(job.offset_bytes)
        for place, (name, file, member, packed, span) in enumerate(job.pictures):
            data, row, reason = b"", blank, ""
            try:
                data = reader.read(Picture(name, file, member, packed and Packed(*packed), span))
                pixels = decode_picture(data, (job.height, job.width) if job.fit else None)
                if pixels.shape != (job.height, job.width, 3):
                    raise _SizesDifferError
                row = pixels.tobytes()
            except BadPictureError as error:
                reason = str(error)
            rows.write(row)
            digests.append(hashlib.blake2b(data, digest_size=16).hexdigest())
            reasons.append(reason)
            if (place + 1) % PICTURES_PER_REPORT == 0:
                yield PICTURES_PER_REPORT
    Path(job.result_file).write_text(json.dumps(vars(_Result(digests, reasons))), "utf-8")
    if rest := len(job.pictures) % PICTURES_PER_REPORT:
        yield rest


def _decode_in_workers(jobs: Sequence[_Job], folder: Path) -> Iterator[int]:
    """Decode each job in a process of its own; yields how many pictures are done, and leaves no process behind.

    The workers are started by their module's name, not by multiprocessing: so a user's script needs no
    ``if __name__ == "__main__"``. All write lines shorter than a pipe's atomic write into one pipe.
    """
    reading, writing = os.pipe()
    workers: list[subprocess.Popen[bytes]] = []
    complaints = folder / "workers.txt"
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    try:
        with os.fdopen(reading, "r") as lines:
            with os.fdopen(writing, "w") as output, complaints.open("ab") as errors:
                for number, job in enumerate(jobs):
                    job_file = folder / f"job-{number}.json"
                    job_file.write_text(json.dumps(vars(job)), "utf-8")
                    with job_file.open("rb") as given:
                        command = [sys.executable, "-P", "-c", "from lamina.data.workers import work; work()"]
                        workers.append(
                            subprocess.Popen(  # noqa: S603 (our own interpreter and our own words)
                                command, stdin=given, stdout=output, stderr=errors, env=environment
                            )
                        )
                    job_file.unlink()
            for line in lines:
                if line == "sizes differ\n":
                    raise _SizesDifferError
                yield int(line)
        for worker in workers:
            _check_ended(worker.wait(), complaints)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _check_ended(status: int, complaints: Path) -> None:
    if status == 0:
        return
    if status in (28, 122):  # ENOSPC, EDQUOT
        raise OSError(status, os.strerror(status))
    last = complaints.read_text("utf-8", errors="replace").strip().rpartition("\n")[2]
    raise DataError(
        f"a process that decoded pictures ended early (status {status}{', ' + last if last else ''}). "
        "Nothing was kept; run the command again, and close other programs if memory is short."
    )


def work() -> None:
    """Do the job on standard input: what a worker process runs."""
    fields = json.load(sys.stdin)
    try:
        for count in _decode_here(_Job(**fields)):
            sys.stdout.write(f"{count}\n")
            sys.stdout.flush()
    except _SizesDifferError:
        sys.stdout.write("sizes differ\n")
    except OSError as error:
        sys.exit(error.errno or 1)


def _start_array(path: Path, shape: tuple[int, ...]) -> int:
    """Write the header of a .npy file and make room for its rows; returns where they start, in bytes."""
    needed_bytes, free_bytes = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed_bytes > free_bytes:
        raise DataError(
            f"the decoded images take {needed_bytes / 1e9:.1f} GB, "
            f"and {path.parent.parent} has {free_bytes / 1e9:.1f} GB free. "
            "Choose a smaller size, or set LAMINA_CACHE to a folder with more room."
        )
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset_bytes = file.tell()
        file.truncate(offset_bytes + needed_bytes)
    return offset_bytes


def _close_gaps(path: Path, kept: Sequence[int]) -> None:
    """Keep only these rows of the array in a file."""
    rows = np.load(path, mmap_mode="r")
    beside = path.with_suffix(".kept")
    offset_bytes = _start_array(beside, (len(kept), *rows.shape[1:]))
    with beside.open("r+b") as file:
        file.seek(offset_bytes)
        for start in range(0, len(kept), 1000):
            file.write(rows[kept[start : start + 1000]].tobytes())
    del rows
    beside.replace(path)
