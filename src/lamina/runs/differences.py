"""Differences between two runs: recipe, net, data, software, machine and results."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import plural
from lamina.nets import Net, parse_net
from lamina.runs.folder import RunFolder
from lamina.runs.nets_by_name import describe_net
from lamina.runs.record import RunRecord, StartedFrom, describe_machine, find_versions
from lamina.text import shorten
from lamina.training.device import choose_again
from lamina.values import fields_to_json

ARITHMETIC = (
    *("versions.lamina", "versions.torch", "versions.timm", "versions.kernels"),
    *("device", "processor", "instructions", "flags", "threads"),
)
"""Software and hardware that may affect the last bits of the weights."""
NONE = "–"
EMPTY: tuple[Any, ...] = (None, "", [], (), {})
SHORT_TEXT = 60  # characters of layers that differ, in words
SETTINGS = {  # in words
    "net_name": "Net",
    "parameters": "Parameters",
    "data.name": "Images",
    "in_shape": "Image size (px)",
    "data.preparation.val_fraction": "Part held out (val)",
    "data.fingerprint": "Version of the images",
    "task.target_names": "Classes",
    "device": "Processor type",
    "precision": "Precision",
    "started from": "Started from",
    "epochs trained": "Epochs trained",
    "versions.lamina": "Version of lamina",
    "versions.torch": "Version of torch",
    "machine.processor": "Processor",
    "machine.threads": "Threads",
}
CHANGING_DATA = {"data.name", "data.preparation.size_px", "data.preparation.val_fraction"}
"""Settings that also change the fingerprint of the data."""
LONGEST_TEXT = 100  # characters; values may contain whole files


@dataclass(frozen=True)
class Difference:
    """A value that differs: its name, such as ``recipe.lr``, and its text in both runs."""

    what: str
    first: str
    second: str


def compare_runs(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Compare two runs except names, commands and times; ``RunError`` for a damaged file."""
    records = compare_records(first.read_record(), second.read_record())
    settings = [item for item in records if not item.what.startswith("started_from.")]
    return [*settings, *_compare(_flatten_course(first), _flatten_course(second))]


def describe_settings(
    first: RunFolder, second: RunFolder, labels: Mapping[str, str]
) -> list[Difference]:
    """How settings and training differ, in words; ``labels`` names the fields of a recipe."""
    words = SETTINGS | {f"recipe.{name}": label for name, label in labels.items()}
    differences = {item.what: item for item in compare_runs(first, second)}
    if differences.keys() & CHANGING_DATA:
        differences.pop("data.fingerprint", None)
    if "epochs trained" in differences:
        differences.pop("recipe.epochs", None)
    listed = []
    for what, item in differences.items():
        if what in words or what.startswith("net, "):
            name = words.get(what) or what.removeprefix("net, ").capitalize()
            texts = [_shorten(what, text) for text in (item.first, item.second)]
            listed.append(Difference(name, *texts))
    return listed


def _shorten(what: str, text: str) -> str:
    if what == "data.fingerprint":
        return text[:6]
    if what == "net_name":
        return describe_net(text)
    if what == "in_shape":
        channels, height, width = text.split(", ")
        return f"{width}×{height}{', gray' if channels == '1' else ''}"
    if what == "parameters":
        return f"{int(text):,}"
    if what.startswith("net, ") and len(text) > SHORT_TEXT:
        return plural(len(parse_net(text)), "layer", "layers")
    return text


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
    for name in ("net", "command", "created", "considered"):
        del plain[name]
    del plain["recipe"]["device"]  # as requested; ``device`` is the chosen device
    # can be thousands, and differ only if the fingerprint of the data does
    plain["task"].pop("shares", None)
    return dict(_flatten(plain))


def _flatten_course(run: RunFolder) -> dict[str, Any]:
    """How training began and ended, and its results."""
    record = run.read_record()
    history = run.history
    epochs = history.epochs()
    trained = str(len(epochs))
    if epochs and epochs[-1].get("epochs", record.recipe.epochs) != record.recipe.epochs:
        limit = re.search(r"--time[= ](\S+)", " ".join(record.command))
        trained += f" (as many as fitted in {limit[1]})" if limit else " (ended early)"
    course: dict[str, Any] = {
        "started from": _describe_start(record.started_from),
        "epochs trained": trained,
    }
    for row in epochs[-1:]:
        names = [name for name in row if "second" not in name and not name.startswith("epoch")]
        course |= {f"last epoch.{name}": row[name] for name in names if name != "layers"}
    report = run.read_report()
    if report is not None:
        course |= {f"report.{name}": value for name, value in report.headline().items()}
        course[f"report.{report.split}_loss"] = report.loss
    return course


def _describe_start(origin: StartedFrom | None) -> str:
    return "" if origin is None else Path(origin.run).name


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
        if name == "machine.flags" and value and other:
            shared = set(value.split()) & set(other.split())
            value = " ".join(flag for flag in value.split() if flag not in shared)
            other = " ".join(flag for flag in other.split() if flag not in shared)
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
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_describe(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return shorten(", ".join(map(_describe, value)), LONGEST_TEXT)
    return shorten(str(value), LONGEST_TEXT)


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
