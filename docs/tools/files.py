"""The page of file formats, and their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.targets import KindName
from tools.markdown import code_spans, row, table_of
from tools.schemas import DRAFT, Schema, describe_class, describe_fields, describe_type
from tools.source_links import write_if_changed


def write_files(folder: Path) -> None:
    from lamina.data import cache
    from lamina.evaluation.calibration import Calibration
    from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport
    from lamina.runs.record import FORMAT, RunRecord
    from lamina.training.checkpoint import Standing

    record = describe_class(RunRecord, "run.json")
    record["properties"] = {"format": {"const": FORMAT}, **record["properties"]}
    record["required"] = ["format", *record["required"]]
    parts: dict[str, Schema] = {}
    reports = {
        report.__name__: describe_fields(report, parts)
        for report in (ClassReport, LabelReport, NumberReport)
    }
    for report in reports.values():
        report["properties"] = {"kind": describe_type(KindName, {}), **report["properties"]}
    report = {
        "$schema": DRAFT,
        "title": "report.json",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in reports],
        "$defs": {**reports, **parts},
    }
    schemas = {
        "run": record,
        "report": report,
        "calibration": describe_class(Calibration, "calibration.json"),
        "checkpoint": describe_class(Standing, "metadata of state.safetensors"),
    }
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        write_if_changed(folder / "schemas" / f"{name}.schema.json", text + "\n")
    lines = list(describe_files(schemas, FORMAT, cache))
    write_if_changed(folder / "files.md", "\n".join(lines) + "\n")


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
        ("calibration", "calibration.json"),
        ("checkpoint", "Metadata of state.safetensors"),
    ):
        schema = schemas[name]
        yield ""
        yield f"### {heading}"
        yield ""
        yield from table_of(schema)
        for part, inner in schema["$defs"].items():
            yield ""
            yield f"**{part}**: {code_spans(inner.get('description', ''))}"
            yield ""
            yield from table_of(inner)
    yield ""
    yield "### report.json"
    yield ""
    yield "A `ClassReport`, `LabelReport` or `NumberReport`. `kind` has the kind of target."
    for part, inner in schemas["report"]["$defs"].items():
        yield ""
        yield f"**{part}**: {code_spans(inner.get('description', ''))}"
        yield ""
        yield from table_of(inner)
    yield ""
    yield "### history.jsonl"
    yield ""
    yield "One [event](events.md) in each line: `epoch`, `rewind` or `early_end`."
    yield ""
    yield "## The cache of decoded data"
    yield ""
    yield f"Format {cache.FORMAT}. `LAMINA_CACHE` names another folder. lamina checks the digests"
    yield "before it uses a copy, and makes damaged copies again."
    yield ""
    yield "```text"
    yield (cache.__doc__ or "").partition("\n\n")[2].strip()
    yield "```"


RUN_FILES = (
    ("run.json", "JSON", "net, recipe, task, data, seed, versions, machine, command", "run"),
    ("history.jsonl", "JSON lines", "one event for each epoch, rewind and early end", ""),
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
    ("splits.json", "JSON", "the rule of the splits, and the split of each file, if drawn", ""),
    ("initial.safetensors", "safetensors", "the weights that the run started from, if any", ""),
    ("curves.png", "PNG", "score and loss by epoch", ""),
    (".lock, .owner", "", "held while the run trains; the process that holds it", ""),
)
