"""The run folder: what a training was, how it went, and what came of it, in plain files.

A run holds ``run.json``, ``history.jsonl``, ``model.safetensors`` and ``report.json``. All but the history, which
only grows, are written beside and renamed, so that none is ever half there. Nothing is pickled or executed.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lamina import __version__
from lamina.errors import LaminaError, LaminaWarning, RunError, suggest
from lamina.evaluation.report import Report
from lamina.plain import fields_to_plain, from_plain
from lamina.record import RunRecord
from lamina.training.model import Model

FORMAT = 1
"""Raised when run.json changes so that an older lamina would misread it."""


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, and what its ``run.json`` holds."""

    path: Path
    record: RunRecord

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def append_epoch(self, row: Mapping[str, str | float | None]) -> None:
        """Add an epoch's figures to the history, on disk when this returns; a figure that is no number becomes null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(finite) + "\n")
            history.flush()
            os.fsync(history.fileno())

    def read_history(self) -> list[dict[str, Any]]:
        """The epochs' figures so far, also while a training adds to them.

        A last line without its end, as a crash leaves it, is passed over with a ``LaminaWarning``.

        Raises:
            RunError: a line is damaged.
        """
        file = self.path / "history.jsonl"
        if not file.exists():
            return []
        *lines, rest = _read_bytes(file).split(b"\n")
        if rest:
            warnings.warn(f"The last line of {file} is incomplete and is passed over.", LaminaWarning, stacklevel=2)
        return [_parse_object(line, f"Line {place} of {file}") for place, line in enumerate(lines, start=1)]

    def save_model(self, model: Model) -> None:
        """Write the weights in the place of those before."""
        # A copy of each: safetensors refuses weights that share memory, as tied ones do.
        weights = {name: tensor.cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        write_atomically(self.path / "model.safetensors", safetensors.torch.save(weights))

    def load_model(self, body: nn.Module | None = None) -> Model:
        """The trained model, on the CPU.

        Args:
            body: for a user's own module, the same module, made anew by the caller.

        Raises:
            RunError: the weights are missing, damaged or do not fit; or a body is missing.
        """
        record, file = self.record, self.path / "model.safetensors"
        body = self._build_body() if body is None else self._take_own(body)
        if not len(record.mean) == len(record.std) == record.in_shape[0]:
            raise _damaged(str(self.path / "run.json"), "mean and std should have a figure for each channel")
        try:
            model = Model(
                body, net=record.net, task=record.task, in_shape=record.in_shape, mean=record.mean, std=record.std
            )
        except (RuntimeError, ValueError) as error:
            raise _damaged(str(self.path / "run.json"), error) from error
        weights = _read_weights(file)
        _check_fit(weights, model.state_dict(), file)
        model.load_state_dict(weights)
        return model.eval()

    def _build_body(self) -> nn.Module:
        net, own_module = self.record.net, self.record.own_module
        if net is None:
            raise RunError(
                f"{self.path} holds the weights of a module of your own, and lamina runs no code that a run names. "
                f"Give the module again with --net {own_module}."
            )
        try:
            return net.check(self.record.in_shape, self.record.task.outputs).module(self.record.in_shape)
        except LaminaError as error:
            raise _damaged(str(self.path / "run.json"), error) from error

    def _take_own(self, body: nn.Module) -> nn.Module:
        if self.record.net is not None:
            raise RunError(f"{self.path} holds its own net, {self.record.net_name}. Leave --net out.")
        return body

    def save_report(self, report: Report) -> None:
        """Write the report in the place of the one before."""
        _write_json(self.path / "report.json", report.to_json())

    def read_report(self) -> Report | None:
        """The final evaluation; ``None`` where there is none yet.

        Raises:
            RunError: its file is damaged.
        """
        file = self.path / "report.json"
        if not file.exists():
            return None
        values = _parse_object(_read_bytes(file), str(file))
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
        path = _make_named(folder / name) if name is not None else _make_numbered(folder, record)
        _write_json(path / "run.json", {"format": FORMAT, **fields_to_plain(record)})
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
    values = _parse_object(_read_bytes(file), str(file))
    written = values.pop("format", None)
    if type(written) is not int:
        raise _damaged(str(file), f"its format should be a number, but is {written!r}")
    if written > FORMAT:
        raise RunError(
            f"{file} is of format {written}, but this lamina ({__version__}) reads up to {FORMAT}. "
            "Update it: pip install --upgrade lamina."
        )
    try:
        return Run(path, from_plain(RunRecord, values, "run"))
    except ValueError as error:
        raise _damaged(str(file), error) from error


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


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file so that whoever reads it, even after a crash, finds the old content or the new and nothing between.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _make_named(path: Path) -> Path:
    try:
        path.mkdir()
    except FileExistsError as error:
        raise RunError(
            f"There is a run {path} already. Choose another --name, or delete that folder if it is not needed."
        ) from error
    return path


def _make_numbered(folder: Path, record: RunRecord) -> Path:
    net_name = re.sub(r"[^\w-]+", "-", record.net_name).strip("-") or "net"
    number = 1
    while True:
        path = folder / f"{record.created[:10]}-{net_name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"}


def _find_run_names(folder: Path) -> list[str]:
    return sorted(file.parent.name for file in folder.glob("*/run.json"))


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror}. Check that the file may be read.") from error


def _parse_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(what, error) from error
    if not isinstance(values, dict):
        raise _damaged(what, f"expected a JSON object, got {values!r:.60}")
    return values


def _damaged(what: str, why: object) -> RunError:
    return RunError(f"{what} is damaged: {str(why).rstrip('.')}. Restore it from a copy, or train again.")


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise RunError(
            f"{file} is missing: the training ended before its weights were saved, or they were deleted. Train again."
        )
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(_read_bytes(file))
    except SafetensorError as error:
        raise _damaged(str(file), error) from error
    return weights


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (weights, expected))
        if found != wanted:
            raise RunError(
                f"{file} does not fit the net: for {name} expected the shape {wanted}, got {found}. "
                "Give the net that was trained, or restore the file from a copy."
            )
