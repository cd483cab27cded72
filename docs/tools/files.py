"""The page of file formats, and their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.markdown import code_spans, row, table_of
from tools.schemas import DRAFT, Schema, add_fields, describe_class
from tools.source_links import write_if_changed


def write_files(folder: Path) -> None:
    from lamina.data import cache
    from lamina.runs.record import FORMAT

    schemas = describe_schemas()
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        write_if_changed(folder / "schemas" / f"{name}.schema.json", text + "\n")
    lines = list(describe_files(schemas, FORMAT, cache))
    write_if_changed(folder / "files.md", "\n".join(lines) + "\n")


def describe_schemas() -> dict[str, Schema]:
    """The schema of each JSON file of a run and of the cache, by its name."""
    from lamina.data import Dataset, cache
    from lamina.evaluation.calibration import Calibration
    from lamina.evaluation.report import Report
    from lamina.runs.record import FORMAT, RunRecord
    from lamina.training.checkpoint import Standing

    record = describe_class(RunRecord, "run.json")
    add_fields(record, {"format": {"const": FORMAT}})
    copy = describe_class(Dataset, "dataset.json of the cache", leave_out=cache.NOT_STORED)
    texts = {"type": "array", "items": {"type": "string"}}
    state = {
        "format": {"const": cache.FORMAT},
        "state": {"type": "string", "description": "sizes and times of the source's files"},
        "counts": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "number of images in test, val and train, in the order of the pixels",
        },
        "shape": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "shape of the pixels (N, H, W, C)",
        },
        "target_names": {**texts, "description": "names of the classes, labels or numbers"},
        "names": {**texts, "description": "names of the images, in the order of the pixels"},
        "groups": {**texts, "description": "group of each image; empty without groups"},
    }
    add_fields(copy, state)
    return {
        "run": record,
        "report": describe_class(Report, "report.json"),
        "calibration": describe_class(Calibration, "calibration.json"),
        "checkpoint": describe_class(Standing, "values in the metadata of state.safetensors"),
        "splits": SPLITS,
        "cache": copy,
    }


def describe_files(schemas: dict[str, Schema], version: int, cache: Any) -> Iterator[str]:
    yield "# Files"
    yield ""
    yield "## A run"
    yield ""
    yield f"A run is a folder of plain files, format {version}. lamina writes each file under"
    yield "another name and renames it, so that no file is incomplete. It pickles nothing and"
    yield "executes nothing that a run contains."
    yield ""
    yield "| file | format | contents | schema |"
    yield "|---|---|---|---|"
    for name, form, contents, schema in RUN_FILES:
        link = ""
        if schema:
            link = f"{{download}}`JSON Schema <schemas/{schema}.schema.json>`"
        yield row([f"`{name}`", form, contents, link])
    for name, heading in (
        ("run", "run.json"),
        ("report", "report.json"),
        ("calibration", "calibration.json"),
        ("checkpoint", "Metadata of state.safetensors"),
    ):
        schema = schemas[name]
        yield ""
        yield f"### {heading}"
        yield ""
        if name == "checkpoint":
            yield "The entry `lamina` of the metadata is JSON with two texts: `digest`, of tensors"
            yield "and values, and `values`, itself JSON with these fields:"
            yield ""
        yield from table_of(schema)
        for part, inner in schema["$defs"].items():
            yield ""
            yield f"**{part}**: {code_spans(inner.get('description', ''))}"
            yield ""
            yield from table_of(inner)
    yield ""
    yield "### history.jsonl"
    yield ""
    yield "Each line is an [event](events.md): `epoch` or `end`."
    yield ""
    yield "### splits.json"
    yield ""
    yield from table_of(schemas["splits"])
    yield ""
    yield "## The cache of decoded data"
    yield ""
    yield f"Format {cache.FORMAT}. `LAMINA_CACHE` names another folder. lamina checks the digests"
    yield "before it uses a copy, and makes damaged copies again."
    yield ""
    yield "```text"
    yield (cache.__doc__ or "").partition("\n\n")[2].strip()
    yield "```"
    yield ""
    yield "`dataset.json` ({download}`JSON Schema <schemas/cache.schema.json>`):"
    yield ""
    yield from table_of(schemas["cache"])


SPLITS: Schema = {
    "$schema": DRAFT,
    "title": "splits.json",
    "type": "object",
    "properties": {
        "rule": {"type": "string", "description": "how lamina drew the splits"},
        "files": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
            "description": "names of the images by split",
        },
    },
    "required": ["rule", "files"],
    "additionalProperties": False,
}
RUN_FILES = (
    ("run.json", "JSON", "net, recipe, task, data, seed, versions, machine, command", "run"),
    ("history.jsonl", "JSON lines", "one event for each epoch, and one for the end", ""),
    ("model.safetensors", "safetensors", "the trained weights, fp32", ""),
    (
        "state.safetensors",
        "safetensors",
        "the checkpoint: weights, initial weights, optimizer state; the position as metadata",
        "checkpoint",
    ),
    ("report.json", "JSON", "the evaluation of the weights on test, or on val", "report"),
    (
        "logits.npz",
        "NumPy",
        "for `test` and `val`: logits (N, K) fp32, targets, names of the images",
        "",
    ),
    ("calibration.json", "JSON", "temperatures and thresholds", "calibration"),
    ("splits.json", "JSON", "the rule of the splits, and their files, if drawn", "splits"),
    ("initial.safetensors", "safetensors", "the weights that the run started from, if any", ""),
    ("curves.png", "PNG", "score and loss by epoch", ""),
    (".lock", "", "held while the run trains", ""),
)
