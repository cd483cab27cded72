"""What the page shows of runs, as JSON values. These functions run in the torch process."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data import thumbnails
from lamina.deploy.studio.net_cards import format_layers
from lamina.deploy.studio.recipe_fields import read_fields
from lamina.deploy.web.explanation import encode_png
from lamina.errors import LaminaError, plural
from lamina.evaluation.words import describe_score
from lamina.insight.inspected_layers import choose_layers, name_stage, read_filters
from lamina.runs.continuing import (
    CHANGEABLE,
    StartingPoint,
    find_checkpoint,
    list_checkpoints,
)
from lamina.runs.loading import find_runs, load_run
from lamina.runs.record import RunRecord
from lamina.runs.run import Run
from lamina.training.hooks import activations
from lamina.training.model import Model
from lamina.training.recipe import overlay

FILTERS = UNITS = 16  # shown
ROW = 8  # tiles side by side


def list_runs(runs_dir: Path) -> list[dict[str, Any]]:
    """All runs, the newest first, with what each came from."""
    runs, damaged = find_runs(runs_dir)
    summaries = []
    for run in runs[::-1]:
        try:
            summaries.append(_summarize(run, runs_dir))
        except LaminaError as error:
            summaries.append({"name": _name(run.path, runs_dir), "problem": str(error)})
    for lost in damaged:
        summaries += [{"name": _name(lost.path, runs_dir), "problem": lost.problem}]
    return summaries


def _name(path: Path, runs_dir: Path) -> str:
    """The name of a run in the folder of the runs, such as ``first`` or ``study/fold-1``."""
    return path.relative_to(runs_dir).as_posix()


def _summarize(run: Run, runs_dir: Path) -> dict[str, Any]:
    record, report = run.record, run.report
    origin, here = record.started_from, runs_dir.resolve()
    is_here = origin is not None and Path(origin.run).is_relative_to(here)
    score = None if report is None else report.score
    return {
        "name": _name(run.path, runs_dir),
        "net": _name_net(record),
        "data": record.data.name,
        "score": None if report is None else describe_score(report),
        "score_value": None if score is None else score.value,
        "score_text": None if score is None else score.format(score.value, 1),
        "is_fraction": score is not None and score.is_fraction,
        "epochs": len(run.folder.history.epochs()),
        "planned": record.epochs,
        "is_finished": run.is_finished,
        "parent": _name(Path(origin.run), here) if origin is not None and is_here else None,
        "parent_epoch": None if origin is None else origin.epoch,
        "created": record.created,
    }


def _name_net(record: RunRecord) -> str:
    if record.net is None or record.net_name != "net":
        return record.net_name
    return (
        f"own net of {plural(len(record.net), 'layer', 'layers')} and {record.parameters:,}"
        " parameters"
    )


def describe_run(runs_dir: Path, name: str) -> dict[str, Any]:
    """A run with its history, net, recipe and checkpoints."""
    run = load_run(runs_dir / name)
    record, start = run.record, StartingPoint(run, None, None)
    return _summarize(run, runs_dir) | {
        "source": record.data.source,
        "size_px": record.data.preparation.size_px,
        "val": record.data.preparation.val_fraction,
        "text": None if record.net is None else format_layers(record.net),
        "recipe": {name: str(value) for name, value in vars(start.recipe).items()},
        "rows": run.folder.history.epochs(),
        "changeable": CHANGEABLE,
        "checkpoints": list(list_checkpoints(run.path)),
        "folder": str(run.path.resolve()),
    }


def list_epochs(path: Path) -> list[float]:
    """The epochs from which a run can continue, the last one first."""
    return list(list_checkpoints(path))


def check_start(path: Path, epoch: float, given: dict[str, str]) -> None:
    """Raise ``LaminaError`` if a run cannot continue from an epoch with these fields."""
    find_checkpoint(path, epoch)
    start = StartingPoint(load_run(path), epoch, None)
    start.check_recipe(overlay(start.recipe, read_fields(given)))


def draw_inside(model: Model, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
    """An image, the first filters, and the outputs of some units of each layer but the last."""
    layers = [place for place in choose_layers(model) if place]
    outputs = activations(model, pixels, layers)
    filters = read_filters(model, layers[0]) if layers else None
    return {
        "image": encode_png(pixels[0]),
        "filters": None if filters is None else draw_tiles(_color(filters[:FILTERS])),
        "layers": [
            {"name": name_stage(model, place), **_draw_units(outputs[place][0].float().numpy())}
            for place in layers[:-1]
        ],
    }


def _color(filters: Float32[np.ndarray, "u c y x"]) -> UInt8[np.ndarray, "u y x c"]:
    """Filters as images: gray is zero, the largest weight of a filter is black or white."""
    limit = np.abs(filters).max(axis=(1, 2, 3), keepdims=True) + 1e-12
    shown: UInt8[np.ndarray, "u y x c"] = (
        np.rint(127.5 + 127.5 * filters / limit).astype(np.uint8).transpose(0, 2, 3, 1)
    )
    return shown if shown.shape[3] in (1, 3) else shown[..., :1]


def _draw_units(output: Float32[np.ndarray, ...]) -> dict[str, Any]:
    """The outputs of the first units: an image for each map, or a bar for each number."""
    units = output[:UNITS]
    if output.ndim == 1:
        return {"values": [round(float(value), 4) for value in output[: 4 * UNITS]]}
    limit = max(float(np.abs(units).max()), 1e-12)
    shown = np.rint(255 * np.clip(np.abs(units) / limit, 0, 1)).astype(np.uint8)[..., None]
    return {"maps": draw_tiles(shown), "units": len(output)}


def draw_thumbnail(pixels: UInt8[np.ndarray, "h w c"], side_px: int) -> str:
    return base64.b64encode(
        thumbnails.encode_png(thumbnails.make_tile(np.asarray(pixels), side_px))
    ).decode()


def draw_tiles(tiles: UInt8[np.ndarray, "u y x c"], most_columns: int = ROW) -> dict[str, Any]:
    """Images of one size side by side, in rows, as one PNG."""
    count, height, width, channels = tiles.shape
    columns = min(most_columns, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1), columns * (width + 1), channels), np.uint8)
    for place, tile in enumerate(tiles):
        y, x = place // columns * (height + 1), place % columns * (width + 1)
        sheet[y : y + height, x : x + width] = tile
    return {"png": encode_png(sheet), "columns": columns}
