"""Differences between two runs: recipe, net, data, software, machine and results."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lamina.nets import Net
from lamina.runs.folder import RunFolder
from lamina.runs.record import RunRecord, describe_machine, find_versions
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
    results: dict[str, Any] = {}
    for row in run.history.epochs()[-1:]:
        results = {f"last epoch.{name}": row[name] for name in row if "second" not in name}
    results["rewinds"] = len(run.history.rewinds())
    report = run.read_report()
    if report is not None:
        results |= {f"report.{name}": value for name, value in report.headline().items()}
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
        values = [first.get(name), second.get(name)]
        texts = [NONE if value in (None, "") else str(value) for value in values]
        if texts[0] == texts[1]:
            continue
        if name == "machine.flags":
            shared = set(texts[0].split()) & set(texts[1].split())
            rests = [[flag for flag in text.split() if flag not in shared] for text in texts]
            texts = [" ".join(rest) or NONE for rest in rests]
        if name.startswith(("data.preparation.", "started_from.")):  # these contain whole files
            texts = [shorten(text, 100) for text in texts]
        yield Difference(name, *texts)


def _compare_nets(first: Net | None, second: Net | None) -> Iterator[Difference]:
    nets = [() if net is None else net.layers for net in (first, second)]
    layers, others = [[repr(layer) for layer in net] for net in nets]
    matcher = difflib.SequenceMatcher(None, layers, others, autojunk=False)
    for kind, start, stop, other_start, other_stop in matcher.get_opcodes():
        if kind != "equal":
            yield Difference(
                f"net, layer {start + 1}",
                ", ".join(layers[start:stop]) or NONE,
                ", ".join(others[other_start:other_stop]) or NONE,
            )
