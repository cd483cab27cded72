"""The views of runs on the page, as JSON values. They run in the threads of the studio."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data import thumbnails
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.explanation import encode_image, encode_png
from lamina.deploy.studio.net_cards import format_layers
from lamina.errors import LaminaError, escape, plural
from lamina.evaluation.report import Report
from lamina.insight.inspected_layers import (
    choose_layers,
    color_filters,
    name_stage,
    read_filters,
)
from lamina.runs.course import find_end
from lamina.runs.folder import Row
from lamina.runs.run import Run, count_planned, find_runs, load_run
from lamina.studies.choosing import describe_net
from lamina.training.hooks import activations
from lamina.training.model import Model
from lamina.training.pretrained import NONE

TRAINING = ("train", "compare", "ablate", "tune")  # commands that train runs
PLACES = ("--name", "--runs-dir")  # of the run; a new run gets its own
SWITCHES = ("--json", "--progress")
HARDLY = 0.1  # a gain that is less than this fraction of the largest possible gain
FILTERS = 16  # shown
UNITS = 16
ROW = 8  # tiles side by side
VERDICTS = {  # on nets that lamina considered, in words
    "fits": "fits into the time, as does a better one",
    "too slow": "would not finish within the time limit",
    "too slow (estimated)": "would not finish within the time limit",
}


def list_runs(folder: DataFolder) -> list[dict[str, Any]]:
    """All runs, the newest first, with what each came from."""
    runs_dir = folder.runs_dir
    runs, problems = find_runs(runs_dir)
    summaries: list[dict[str, Any]] = []
    for run in runs[::-1]:
        try:
            summaries.append(_summarize(run, run.folder.read_rows(), runs_dir))
        except LaminaError as error:
            problems[run.path] = error.problem
    return summaries + [
        {"name": _name(path, runs_dir), "problem": problem} for path, problem in problems.items()
    ]


def _name(path: Path, runs_dir: Path) -> str:
    """The name of a run below ``runs_dir``, such as ``first`` or ``study/fold-1``."""
    return path.relative_to(runs_dir).as_posix()


def _summarize(run: Run, rows: list[Row], runs_dir: Path) -> dict[str, Any]:
    record = run.record
    history = [row for row in rows if row["event"] == "epoch"]
    parent = None
    start = record.started_from
    if start is not None and Path(start.run).is_relative_to(runs_dir.resolve()):
        parent = _name(Path(start.run), runs_dir.resolve())
    result: dict[str, Any] = dict.fromkeys(("score", "score_value", "score_text", "is_better"))
    report = run.report
    if report is not None:
        score = report.score
        result = {
            "score": report.headline(),
            "score_value": score.value,
            "score_text": score.format(score.value, 1),
            # of accuracy, which is then told in images
            "images": report.images if _is_count(report) else None,
            "baseline_value": report.baseline and report.baseline.value,
            "baseline_text": report.baseline and score.format(report.baseline.value, 1),
            "is_better": _is_better(report),
        }
    net = describe_net(record.net_name)
    if record.timm is not None and record.timm.weights != NONE:
        net += " (pretrained)"
    if record.net is not None and net == "net":
        layers = plural(len(record.net), "layer", "layers")
        net = f"own net of {layers} and {record.parameters:,} parameters"
    return {
        "name": _name(run.path, runs_dir),
        "net": net,
        "data": record.data.name,
        "epochs": len(history),
        "planned": count_planned(record, history),
        "seconds": sum(row.get("train_seconds") or 0.0 for row in history),
        # even if the user ended it early, by Finish now
        "is_finished": find_end(rows) is not None or report is not None,
        "created": record.created,
        "is_fraction": report is not None and report.score.is_fraction,
        "parent": parent,
        **result,
    }


def _is_count(report: Report) -> bool:
    """Whether the score is the fraction of images with the correct class."""
    return report.score.name == "accuracy" and report.kind in ("single-label", "binary")


def _is_better(report: Report) -> bool:
    """Whether the gain over the baseline is measurable, and not tiny."""
    baseline = report.baseline
    if baseline is None or not baseline.is_beaten:
        return False
    most = baseline.value if report.kind == "regression" else 1 - baseline.value
    return baseline.gain >= HARDLY * most


def describe_run(folder: DataFolder, run: str) -> dict[str, Any]:
    """A run with its history, net and recipe."""
    loaded = load_run(folder.find_run(run))
    record = loaded.record
    rows = loaded.folder.read_rows()
    summary = _summarize(loaded, rows, folder.runs_dir)
    recipe = vars(record.recipe) | {"epochs": summary["planned"] or record.recipe.epochs}
    return summary | {
        "source": record.data.source,
        "size_px": record.data.preparation.size_px,
        "val": record.data.preparation.val_fraction,
        "text": None if record.net is None else format_layers(record.net),
        "recipe": {name: str(value) for name, value in recipe.items()},
        "rows": [row for row in rows if row["event"] == "epoch"],
        "command": write_command(record.command),
        "folder": str(loaded.path.resolve()),
        "considered": [
            {"name": describe_net(net.net_name), "side_px": net.side_px, "verdict": verdict}
            for net in record.considered
            for verdict in [VERDICTS.get(net.verdict, net.verdict)]
        ],
    }


def write_command(words: tuple[str, ...]) -> str:
    """The command of a run, without its name and folder, for a new run.

    Empty unless it trains with lamina and can be shown as it is: the run may come from others.
    """
    is_training = any(words[:2] == ("lamina", name) for name in TRAINING)
    if not is_training or any(word != escape(word) for word in words):
        return ""
    repeated = []
    is_place = False
    for word in words:
        if not (is_place or word.partition("=")[0] in PLACES or word in SWITCHES):
            repeated.append(word)
        is_place = word in PLACES
    return shlex.join(repeated)


def draw_inside(model: Model, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
    """An image, the first filters, and the outputs of some units of each layer but the last."""
    layers = [place for place in choose_layers(model) if place]
    outputs = activations(model, pixels, layers)
    filters = read_filters(model, layers[0]) if layers else None
    drawn = []
    for layer in layers[:-1]:
        output = outputs[layer][0].float().numpy()
        drawn.append({"name": name_stage(model, layer), **draw_units(output)})
    return {
        "image": encode_png(pixels[0]),
        "filters": None if filters is None else draw_tiles(color_filters(filters[:FILTERS])),
        "layers": drawn,
    }


def draw_units(output: Float32[np.ndarray, ...]) -> dict[str, Any]:
    """The outputs of the first units: an image for each map, or a bar for each number."""
    if output.ndim == 1:
        return {"values": [round(value, 4) for value in output[: 4 * UNITS].tolist()]}
    return {"maps": draw_tiles(shade_outputs(output[:UNITS])), "units": len(output)}


def draw_thumbnail(pixels: UInt8[np.ndarray, "h w c"], side_px: int) -> str:
    return encode_image(thumbnails.make_tile(np.asarray(pixels), side_px))


def draw_tiles(tiles: UInt8[np.ndarray, "u y x c"], most_columns: int = ROW) -> dict[str, Any]:
    """Images of one size side by side, in rows, as one PNG."""
    columns = min(most_columns, len(tiles))
    return {"png": encode_png(join_tiles(tiles, columns)), "columns": columns}


def shade_outputs(maps: Float32[np.ndarray, "u y x"]) -> UInt8[np.ndarray, "u y x 1"]:
    """The sizes of outputs: black is zero, and the largest of all units is white."""
    sizes = np.abs(maps)
    shades: UInt8[np.ndarray, "u y x"] = np.rint(
        255 * sizes / max(float(sizes.max()), 1e-12)
    ).astype(np.uint8)
    return shades[..., None]


def join_tiles(tiles: UInt8[np.ndarray, "u y x c"], columns: int) -> UInt8[np.ndarray, "h w c"]:
    """Images of one size in rows, with gray lines between them."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    shape = (rows * (height + 1), columns * (width + 1), channels)
    sheet = np.full(shape, 128, np.uint8)
    for place, tile in enumerate(tiles):
        y = place // columns * (height + 1)
        x = place % columns * (width + 1)
        sheet[y : y + height, x : x + width] = tile
    return sheet[:-1, :-1]
