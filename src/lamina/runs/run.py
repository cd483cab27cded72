"""The run folder: what a training was, how it went, and what came of it, in plain files.

A run holds ``run.json``, ``history.jsonl``, ``model.safetensors``, ``state.safetensors`` (the checkpoint),
``report.json`` and, where the splits were drawn, ``splits.json``. All but the history, which only grows, are written
beside and renamed, so that none is ever half there. Nothing is pickled or executed.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lamina import __version__
from lamina.data import Dataset
from lamina.errors import LaminaError, LaminaWarning, NetError, RunError, suggest
from lamina.evaluation.reports import Report
from lamina.files import damaged, lock_folder, parse_object, read_bytes, sync_folder, write_atomically, write_json
from lamina.runs.record import RunRecord, upgrade_record
from lamina.training.checkpoint import Checkpoint, Standing
from lamina.training.model import Model
from lamina.training.pretrained import import_timm
from lamina.training.tensors import read_tensors, write_tensors
from lamina.values import fields_to_plain, from_plain

FORMAT = 3
"""Raised when run.json changes; ``record.upgrade_record`` says how older ones are read."""
NO_CHECKPOINT = "Restore it from a copy, or delete it and history.jsonl: lamina resume then begins at the start."
"""What to do about a checkpoint that cannot be used."""

BAD_LINE = "Restore it from a copy, or delete that line: the weights and the checkpoint are in files of their own."
"""What to do about a line of the history that is none."""
TEXTS = ("reason", "weights")
"""The fields of a row that hold words; the others hold figures."""


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, and what its ``run.json`` holds."""

    path: Path
    record: RunRecord

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training this run while the block works.

        Raises:
            RunError: another process has it, or the folder cannot be written.
        """
        with lock_folder(self.path):
            yield

    def append_epoch(self, row: Mapping[str, str | float | None]) -> None:
        """Add an epoch's figures to the history, on disk when this returns; a figure that is no number becomes null.

        A row with the field ``rewind``, its number, tells of a return to a checkpoint instead.

        Raises:
            OSError: the file cannot be written; it ends where it ended before.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        line = (json.dumps(finite) + "\n").encode()
        with open(self.path / "history.jsonl", "ab", buffering=0, opener=_open_no_link) as history:
            end = history.tell()
            try:
                if history.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(history.fileno())
            except OSError:
                history.truncate(end)
                raise

    def read_history(self) -> list[dict[str, Any]]:
        """The epochs' figures so far, also while a training adds to them.

        A last line without its end, as a crash leaves it, is passed over with a ``LaminaWarning``.

        Raises:
            RunError: a line is damaged.
        """
        return [row for row in self._read_rows() if "rewind" not in row]

    def read_rewinds(self) -> list[dict[str, Any]]:
        """Where and why the training went back to a checkpoint, one entry a time.

        Raises:
            RunError: a line is damaged.
        """
        return [row for row in self._read_rows() if "rewind" in row]

    def trim_history(self, epochs: int, rewinds: int) -> None:
        """Leave the first ``epochs`` and ``rewinds`` in the history: what a crash cut off from its checkpoint goes.

        Raises:
            RunError: a line is damaged.
            OSError: the file cannot be written; it is as before.
        """
        file = self.path / "history.jsonl"
        if not file.exists():
            return
        with warnings.catch_warnings(action="ignore", category=LaminaWarning):
            rows = self._read_rows()
        kept = [row for row in rows if (row["rewind"] <= rewinds if "rewind" in row else row["epoch"] <= epochs)]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if text.encode() != read_bytes(file):
            write_atomically(file, text)

    def _read_rows(self) -> list[dict[str, Any]]:
        file = self.path / "history.jsonl"
        if not file.exists():
            return []
        *lines, rest = read_bytes(file).split(b"\n")
        if rest:
            warnings.warn(
                f"The last line of {file} is incomplete, as a crash leaves it, and is passed over. "
                "lamina resume makes that epoch again.",
                LaminaWarning,
                stacklevel=3,
            )
        return [_parse_row(line, f"Line {place} of {file}") for place, line in enumerate(lines, start=1)]

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write all that an exact continuation needs in the place of the checkpoint before.

        Raises:
            OSError: the file cannot be written; the checkpoint before is still there.
        """
        write_tensors(self.path / "state.safetensors", checkpoint.tensors, fields_to_plain(checkpoint.standing))

    def read_checkpoint(self) -> Checkpoint | None:
        """Where the training was last saved; ``None`` where it has not been yet.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / "state.safetensors"
        if not file.exists():
            return None
        tensors, values = read_tensors(file, NO_CHECKPOINT)
        try:
            return Checkpoint(tensors, from_plain(Standing, values, "checkpoint"))
        except ValueError as error:
            raise damaged(str(file), error, NO_CHECKPOINT) from error

    def replace_record(self, record: RunRecord) -> Run:
        """The run with another record, which is written to ``run.json``; a report of what it was before is removed.

        Raises:
            OSError: the file cannot be written; it is as before.
        """
        if record != self.record:
            _write_record(self.path, record)
            (self.path / "report.json").unlink(missing_ok=True)
        return Run(self.path, record)

    def save_model(self, model: Model) -> None:
        """Write the weights in the place of those before."""
        write_tensors(self.path / "model.safetensors", model.state_dict(), {})

    def load_model(self, body: nn.Module | None = None) -> Model:
        """The trained model, on the CPU.

        Args:
            body: for a user's own module, the same module, made anew by the caller.

        Raises:
            RunError: the weights are missing, damaged or do not fit; or a body is missing.
            NetError: the net is timm's, which is not installed.
        """
        record, file = self.record, self.path / "model.safetensors"
        body = self._build_body() if body is None else self._take_own(body)
        if not len(record.mean) == len(record.std) == record.in_shape[0]:
            raise damaged(str(self.path / "run.json"), "mean and std should have a figure for each channel")
        try:
            model = Model(
                body, net=record.net, task=record.task, in_shape=record.in_shape, mean=record.mean, std=record.std
            )
        except (RuntimeError, ValueError) as error:
            raise damaged(str(self.path / "run.json"), error) from error
        weights = _read_weights(file)
        _check_fit(weights, model.state_dict(), file)
        model.load_state_dict(weights)
        return model.eval()

    def _build_body(self) -> nn.Module:
        net, own_module, timm = self.record.net, self.record.own_module, self.record.timm
        if timm is not None:
            import_timm()
            try:
                return timm.empty_module(self.record.in_shape, self.record.task.outputs)
            except NetError as error:
                raise damaged(str(self.path / "run.json"), error) from error
        if net is None:
            raise RunError(
                f"{self.path} holds the weights of a module of your own, and lamina runs no code that a run names. "
                f"Give the module again with --net {own_module}."
            )
        try:
            return net.check(self.record.in_shape, self.record.task.outputs).module(self.record.in_shape)
        except LaminaError as error:
            raise damaged(str(self.path / "run.json"), error) from error

    def _take_own(self, body: nn.Module) -> nn.Module:
        if self.record.net is not None or self.record.timm is not None:
            raise RunError(f"{self.path} holds its own net, {self.record.net_name}. Leave --net out.")
        return body

    def save_report(self, report: Report) -> None:
        """Write the report in the place of the one before."""
        write_json(self.path / "report.json", report.to_json())

    def save_splits(self, dataset: Dataset) -> None:
        """Write which file is in which split, and by what rule, to ``splits.json``."""
        files = {split: list(images.names) for split, images in dataset.splits.items()}
        write_json(self.path / "splits.json", {"rule": dataset.split_rule, "files": files})

    def read_report(self) -> Report | None:
        """The final evaluation; ``None`` where there is none yet.

        Raises:
            RunError: its file is damaged.
        """
        file = self.path / "report.json"
        if not file.exists():
            return None
        values = parse_object(read_bytes(file), str(file))
        try:
            return Report.from_json(values)
        except LaminaError as error:
            raise RunError(f"{file}: {error}") from error


@dataclass(frozen=True)
class DamagedRun:
    """A folder among the runs that cannot be read as one, and why."""

    path: Path
    problem: str


def create_run(folder: Path, record: RunRecord, name: str | None = None) -> Run:
    """Make the folder of a new run in ``folder`` and write its ``run.json``; two processes never get the same one.

    Args:
        folder: where the runs are; made if it is not there.
        record: what the run is.
        name: of the run; by default the date, the net and the first number that is free: ``2026-11-24-cnn-1``.

    Raises:
        RunError: there is a run of that name, the name is none, or the folder cannot be written.
    """
    if name is not None and not _is_plain_name(name):
        raise RunError(f"Expected a plain name for the run, such as first-try, got {name!r}. Give one without / or \\.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Made beside and renamed: whoever finds the folder finds its run.json.
        beside = folder / f".{secrets.token_hex(8)}"
        beside.mkdir()
        try:
            _write_record(beside, record)
            path = _name_folder(beside, folder / name) if name is not None else _number_folder(beside, folder, record)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(folder)
    except OSError as error:
        raise RunError(
            f"Cannot write a run to {folder}: {error.strerror}. Choose another folder with --runs-dir."
        ) from error
    return Run(path, record)


def read_run(path: Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: there is none, or its ``run.json`` is damaged or of a newer lamina.
    """
    file = path / "run.json"
    if path.is_file():
        raise RunError(f"Expected the folder of a run, got the file {path}. Give {path.parent}.")
    if not path.is_dir():
        siblings = _find_run_names(path.parent)
        where = "This folder" if path.parent == Path() else str(path.parent)
        remedy = suggest(path.name, siblings) if siblings else f"{where} holds no runs: make one with lamina train."
        raise RunError(f"There is no run {path}. {remedy}")
    if not file.exists():
        raise RunError(f"{path} is not a run: it has no run.json. Give the folder of a run.")
    values = parse_object(read_bytes(file), str(file))
    written = values.pop("format", None)
    if type(written) is not int:
        raise damaged(str(file), f"its format should be a number, but is {written!r}")
    if written > FORMAT:
        raise RunError(
            f"{file} is of format {written}, but this lamina ({__version__}) reads up to {FORMAT}. "
            "Update it: pip install --upgrade lamina."
        )
    try:
        return Run(path, from_plain(RunRecord, upgrade_record(values, written), "run"))
    except ValueError as error:
        raise damaged(str(file), error) from error


def list_runs(folder: Path) -> list[Run | DamagedRun]:
    """The runs in a folder, the oldest first, and then what is damaged; none where there is no folder."""
    runs: list[Run] = []
    damaged: list[DamagedRun] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(read_run(path))
            except RunError as error:
                damaged.append(DamagedRun(path, str(error)))
    return [*sorted(runs, key=lambda run: run.record.created), *damaged]


def _write_record(folder: Path, record: RunRecord) -> None:
    write_json(folder / "run.json", {"format": FORMAT, **fields_to_plain(record)})


def _name_folder(folder: Path, path: Path) -> Path:
    if not _rename_folder(folder, path):
        raise RunError(
            f"There is a run {path} already. Choose another --name, or delete that folder if it is not needed."
        )
    return path


def _number_folder(folder: Path, runs_dir: Path, record: RunRecord) -> Path:
    net_name = re.sub(r"[^\w-]+", "-", record.net_name).strip("-") or "net"
    for number in itertools.count(1):
        path = runs_dir / f"{record.created[:10]}-{net_name}-{number}"
        if not path.exists() and _rename_folder(folder, path):
            break
    return path


def _rename_folder(folder: Path, path: Path) -> bool:
    """Give a folder its name, unless something has it: an empty folder may be replaced, as POSIX has it."""
    try:
        folder.rename(path)
    except OSError as error:
        if path.exists():
            return False
        raise error
    return True


def _open_no_link(path: str, flags: int) -> int:
    # Windows has no such flag, and lets few accounts make links.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _parse_row(line: bytes, what: str) -> dict[str, Any]:
    row = parse_object(line, what, BAD_LINE)
    key = "rewind" if "rewind" in row else "epoch"
    number = row.get(key)
    if type(number) is not int or number < 1:
        raise damaged(what, f"its {key} should be a whole number from 1, but is {number!r:.60}", BAD_LINE)
    for name, value in row.items():
        if not (isinstance(value, str) if name in TEXTS else _is_figure(value)):
            kind = "text" if name in TEXTS else "a number"
            raise damaged(what, f"its {name:.60} should be {kind}, but is {value!r:.60}", BAD_LINE)
    return row


def _is_figure(value: object) -> bool:
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"}


def _find_run_names(folder: Path) -> list[str]:
    return sorted(file.parent.name for file in folder.glob("*/run.json"))


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise RunError(
            f"{file} is missing: the training ended before its weights were saved, or they were deleted. "
            f"Write it with lamina resume {file.parent}"
        )
    return read_tensors(file, f"Restore it from a copy, or write it again with lamina resume {file.parent}")[0]


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (weights, expected))
        if found != wanted:
            raise RunError(
                f"{file} does not fit the net: for {name} expected the shape {wanted}, got {found}. "
                "Give the net that was trained, or restore the file from a copy."
            )
