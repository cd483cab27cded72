"""Differences between two runs: recipe, net, data, software, machine and results."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lamina.nets import Net
from lamina.runs.record import RunRecord, describe_machine, find_versions
from lamina.runs.run_folder import RunFolder
from lamina.text import shorten
from lamina.training.device import choose_again
from lamina.values import fields_to_json

ARITHMETIC = (
    *("versions.lamina", "versions.torch", "versions.timm", "versions.kernels"),
    *("device", "processor", "instructions", "flags", "threads"),
)
"""Software and hardware that may affect the last bits of the weights."""
NONE = "–"


@dataclass(frozen=True)
class Difference:
    """A value that differs: its name, such as ``recipe.lr``, and its text in both runs."""

    what: str
    first: str
    second: str


def compare_runs(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Compare two runs except names, commands and times; ``RunError`` for a damaged file."""
    return [
        *compare_records(first.read_record(), second.read_record()),
        *_compare(_flatten_results(first), _flatten_results(second)),
    ]


def compare_records(first: RunRecord, second: RunRecord) -> list[Difference]:
    """Differences between two records, without command and time."""
    return [
        *_compare_nets(first.net, second.net),
        *_compare(_flatten_record(first), _flatten_record(second)),
    ]


def find_changes(record: RunRecord) -> list[Difference]:
    """Differences between a run and this process that may affect the last bits of the weights."""
    now = dataclasses.replace(
        record,
        device=choose_again(record.device),
        versions=find_versions(with_timm=record.timm is not None),
        machine=describe_machine(),
    )
    return [
        difference
        for difference in _compare(_flatten_record(record), _flatten_record(now))
        if difference.what.removeprefix("machine.") in ARITHMETIC
    ]


def _flatten_record(record: RunRecord) -> dict[str, Any]:
    plain = fields_to_json(record) | {
        "device": record.device.value,
        "precision": record.precision.value,
    }
    for name in ("net", "command", "created"):
        del plain[name]
    del plain["recipe"]["device"]  # what was asked for; ``device`` is what was chosen
    # can be thousands, and differ only if the fingerprint of the data does
    plain["task"].pop("shares", None)
    return dict(_flatten(plain))


def _flatten_results(run: RunFolder) -> dict[str, Any]:
    history, report = run.history.epochs(), run.read_report()
    last = history[-1] if history else {}
    results = {f"last epoch.{name}": value for name, value in last.items() if "second" not in name}
    results |= {"rewinds": len(run.history.rewinds())}
    if report is not None:
        results |= {f"report.{name}": value for name, value in report.headline().items()}
        results |= {f"report.{report.split}_loss": report.loss}
    return results


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*first, *second)):
        one, other = (
            NONE if values.get(name) in (None, "") else str(values[name])
            for values in (first, second)
        )
        if one != other and name == "machine.flags":
            one, other = _drop_shared_words(one, other), _drop_shared_words(other, one)
        if one != other:
            # these contain whole files
            is_long = name.startswith(("data.preparation.", "started_from."))
            yield Difference(
                name, *((shorten(text, 100) for text in (one, other)) if is_long else (one, other))
            )


def _compare_nets(first: Net | None, second: Net | None) -> Iterator[Difference]:
    rows = [
        [repr(layer) for layer in net.layers] if net is not None else [] for net in (first, second)
    ]
    matcher = difflib.SequenceMatcher(None, rows[0], rows[1], autojunk=False)
    for kind, start, stop, other_start, other_stop in matcher.get_opcodes():
        if kind != "equal":
            one, other = rows[0][start:stop], rows[1][other_start:other_stop]
            yield Difference(
                f"net, layer {start + 1}", ", ".join(one) or NONE, ", ".join(other) or NONE
            )


def _drop_shared_words(one: str, other: str) -> str:
    return " ".join(word for word in one.split() if word not in other.split()) or NONE
