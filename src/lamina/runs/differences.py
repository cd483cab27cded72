"""Differences between two runs: recipe, net, data, software, machine and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.runs.folder import RunFolder
from lamina.runs.record import RunRecord, describe_machine, find_versions
from lamina.text import shorten
from lamina.training.device import choose_again
from lamina.values import fields_to_json

ARITHMETIC = (
    *("versions.lamina", "versions.torch", "versions.timm", "versions.kernels", "device"),
    *("machine.processor", "machine.instructions", "machine.flags", "machine.threads"),
)
"""Software and hardware that may affect the last bits of the weights."""
NONE = "–"
EMPTY: tuple[Any, ...] = (None, "", [], (), {})
LONGEST_TEXT = 100  # characters; values may contain whole files


@dataclass(frozen=True)
class Difference:
    """A value that differs: its name, such as ``recipe.lr``, and its text in both runs."""

    what: str
    first: str
    second: str


def compare_runs(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Compare two runs except names, commands and times; ``RunError`` for a damaged file."""
    values, others = (
        _flatten_record(folder.read_record()) | _flatten_results(folder)
        for folder in (first, second)
    )
    return list(_compare(values, others))


def compare_records(first: RunRecord, second: RunRecord) -> list[Difference]:
    """Differences between two records, without command and time."""
    return list(_compare(_flatten_record(first), _flatten_record(second)))


def find_changes(record: RunRecord) -> list[Difference]:
    """Differences between a run and this process that may affect the last bits of the weights."""
    now = dataclasses.replace(
        record,
        device=choose_again(record.device),
        versions=find_versions(with_timm=record.timm is not None),
        machine=describe_machine(),
    )
    changes = compare_records(record, now)
    return [change for change in changes if change.what.startswith(ARITHMETIC)]


def _flatten_record(record: RunRecord) -> dict[str, Any]:
    plain = fields_to_json(record)
    for name in ("net", "command", "created", "considered", "started_from"):
        del plain[name]
    del plain["recipe"]["device"]  # as requested; ``device`` is the chosen device
    # can be thousands, and differ only if the fingerprint of the data does
    plain["task"].pop("shares", None)
    plain["machine"]["flags"] = dict.fromkeys(record.machine.flags.split(), True)
    plain |= {"device": record.device.value, "precision": record.precision.value}
    if record.started_from is not None:
        plain["started from"] = Path(record.started_from.run).name
    layers = enumerate(record.net or (), start=1)
    return {f"net, layer {place}": repr(layer) for place, layer in layers} | dict(_flatten(plain))


def _flatten_results(folder: RunFolder) -> dict[str, Any]:
    """How many epochs were trained, and the results."""
    epochs = folder.read_epochs()
    results: dict[str, Any] = {"epochs trained": str(len(epochs))}
    for row in epochs[-1:]:
        names = [name for name in row if "second" not in name and not name.startswith("epoch")]
        results |= {f"last epoch.{name}": row[name] for name in names if name != "layers"}
    report = folder.read_report()
    if report is not None:
        results |= {f"report.{name}": value for name, value in report.values().items()}
        results[f"report.{report.split}_loss"] = report.loss
    return results


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*first, *second)):
        value = first.get(name)
        other = second.get(name)
        if value == other or (value in EMPTY and other in EMPTY):
            continue
        text = _describe(value)
        other_text = _describe(other)
        if text == other_text:  # they differ in later digits, or after the first characters
            text = repr(value)
            other_text = repr(other)
        yield Difference(name, text, other_text)


def _describe(value: Any) -> str:
    """A value in words; lists and whole files are shortened."""
    if value in EMPTY:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return shorten(", ".join(map(_describe, value)), LONGEST_TEXT)
    return shorten(str(value), LONGEST_TEXT)
