"""The results of runs on the page, as JSON values. They run in the threads of the studio."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from lamina.data import Dataset
from lamina.data.image_inputs import decode_ahead
from lamina.deploy.studio.data_folder import DataFolder, check_is_here
from lamina.deploy.studio.disagreements import decide_rows, find_differing
from lamina.deploy.studio.explanation import (
    SIMILAR_SECONDS,
    TrainingImages,
    compute_features,
    explain_image,
)
from lamina.deploy.studio.recipe_fields import LABELS
from lamina.deploy.studio.run_views import draw_inside, draw_thumbnail, draw_tiles
from lamina.errors import DataError, LaminaError
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.evaluation.predictions import describe, make_prediction
from lamina.evaluation.predictor import Predictor
from lamina.evaluation.shared_images import align_images, find_newest
from lamina.insight.confusions import find_confusions
from lamina.insight.inspected_layers import choose_layers, describe_field, name_stage
from lamina.insight.units import cut_patch, inspect_layers, measure_responses
from lamina.runs.differences import compare_runs
from lamina.runs.folder import RunFolder
from lamina.runs.record import DataOrigin
from lamina.runs.run import Run, find_dataset, find_outputs, load_run
from lamina.studies.judging import find_evaluated, judge_runs
from lamina.targets import REGRESSION
from lamina.text import escape
from lamina.training.task import Task

Image: TypeAlias = bytes | tuple[str, int]
"""The content of a file, or the split and row of one of the run's images (by default, of
``val``)."""
FIRST = ("", 0)
TILES = 30  # images with one prediction
PAIR_TILES = 12  # images of one disagreement
TILE_PX = 96  # longer side
SHOWN_VALUES = 12  # classes or labels of a prediction
UNITS = 12
SEEN_IMAGES = 500  # training images that are searched for patches
SEEN_SECONDS = 5.0
TIMED_IMAGES = 10
SETTINGS = {  # in words
    "net_name": "Net",
    "parameters": "Parameters",
    "data.name": "Images",
    "in_shape": "Image size (channels, height, width)",
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
FILES = "run.json", "model.safetensors", "report.json", "calibration.json", "logits.npz"


@dataclass(frozen=True, eq=False)
class Opened:
    """A run with its model."""

    run: Run
    predictor: Predictor

    @property
    def task(self) -> Task:
        return self.predictor.task

    @property
    def dataset(self) -> Dataset:
        return load_dataset(self.run.path, self.run.record.data)

    @cached_property
    def training_images(self) -> TrainingImages:
        return compute_features(
            self.predictor.model, self.dataset.train, time.monotonic() + SIMILAR_SECONDS
        )


def open_run(path: Path) -> Opened:
    """A run, loaded again only if its files have changed."""
    files = [path / name for name in FILES]
    changed = tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
    # Each thread has models of its own, because their hooks record all that is computed.
    return _open(path, (threading.get_ident(), *changed))


@lru_cache(maxsize=4)
def _open(path: Path, _: tuple[int, ...]) -> Opened:
    run = load_run(path)
    return Opened(run, run.predictor(device="cpu"))


@lru_cache(maxsize=4)
def load_dataset(path: Path, _: DataOrigin) -> Dataset:
    """Load a run's data, which must be unchanged; cached until the run has other data."""
    run = load_run(path)
    check_is_here(run.record.data.source)
    return find_dataset(run)


def show_report(folder: DataFolder, run: str) -> dict[str, Any]:
    """A run's report with confusions and largest losses, or why it is missing, and the layers."""
    opened = open_run(folder.find_run(run))
    model = opened.predictor.model
    report = opened.run.report
    layers = [[layer, name_stage(model, layer)] for layer in choose_layers(model)]
    if report is None:
        missing = f"{run} is evaluated when its training has ended; Continue resumes it."
        return {"layers": layers, "missing": missing}
    outputs = find_outputs(opened.run)
    confusions = find_confusions(opened.task, [outputs])
    rows = np.argsort(-confusions.losses, kind="stable")
    is_right = decide_rows(opened.task, outputs) == outputs.targets.reshape(len(rows), -1)
    wrong = rows[~is_right.all(axis=1)[rows]]
    are_wrong = opened.task.kind is not REGRESSION and len(wrong) > 0
    if are_wrong:
        rows = wrong
    return {
        "layers": layers,
        "verdict": list(map(escape, report.verdict())),
        "lines": list(map(escape, [report.headline(), *report.details()])),
        "table": report.table(),
        "report": report.to_json(),
        "confusions": [[table.names, _list_cells(table.count())] for table in confusions.tables],
        "largest": {**show_tiles(opened, outputs, rows[:TILES]), "are_wrong": are_wrong},
    }


def _list_cells(counts: Int64[np.ndarray, "k k"]) -> list[list[int]]:
    """True class, predicted class and number of images of each cell with images."""
    rows, columns = np.nonzero(counts)
    cells: list[list[int]] = np.column_stack([rows, columns, counts[rows, columns]]).tolist()
    return cells


def show_cell(
    folder: DataFolder, run: str, problem: int, truth: int, predicted: int
) -> dict[str, Any]:
    """The images with a true and a predicted class, the largest loss first."""
    opened = open_run(folder.find_run(run))
    outputs = find_outputs(opened.run)
    problems = find_confusions(opened.task, [outputs]).tables
    rows = np.empty(0, np.int64)
    if 0 <= problem < len(problems):
        rows = problems[problem].rows(truth, predicted)
    if not len(rows):
        raise DataError(
            "There are no such images, because the run was evaluated again. Reload the page."
        )
    return show_tiles(opened, outputs, rows[:TILES])


def show_tiles(opened: Opened, outputs: Outputs, rows: Int64[np.ndarray, " m"]) -> dict[str, Any]:
    """Evaluated images with target and prediction; ``problem`` explains why images are missing."""
    problem = ""
    pngs: list[str | None] = [None] * len(rows)
    try:
        pixels = opened.dataset.splits[outputs.split].pixels
        pngs = [draw_thumbnail(pixels[row], TILE_PX) for row in rows]
    except LaminaError as error:
        problem = f"The images are not shown. {error.problem}"
    targets, predictions = describe_rows(opened.task, outputs, rows)
    images = [
        {"row": row, "name": outputs.names[row], "target": target, "predicted": text, "png": png}
        for row, target, text, png in zip(rows.tolist(), targets, predictions, pngs, strict=True)
    ]
    return {"split": outputs.split, "problem": problem, "images": images}


def describe_rows(
    task: Task, outputs: Outputs, rows: Int64[np.ndarray, " m"]
) -> tuple[list[str], list[str]]:
    """The targets of some images, and the predictions with their probabilities."""
    targets = outputs.targets[rows]
    logits = outputs.logits[rows]
    if task.kind is REGRESSION:
        return format_numbers(targets), format_numbers(logits)
    values = task.probabilities(torch.from_numpy(logits)).tolist()
    predictions = [describe(make_prediction(task, "", row)) for row in values]
    return [task.kind.format(target, task.target_names) for target in targets], predictions


def format_numbers(rows: Float32[np.ndarray, "m k"]) -> list[str]:
    return [", ".join(f"{number:.3g}" for number in row) for row in rows.tolist()]


def show_units(folder: DataFolder, run: str, layer: str) -> dict[str, Any]:
    """The units of a layer that separate a class best, with the patches that excite them most."""
    opened = open_run(folder.find_run(run))
    model = opened.predictor.model
    train = opened.dataset.train
    if layer not in choose_layers(model):
        raise DataError(f"{run} has no layer {layer[:100]!r}. Choose one from the list.")
    began = time.perf_counter()
    measure_responses(model, train.take_evenly(TIMED_IMAGES).pixels, [layer])
    affordable = round(TIMED_IMAGES * SEEN_SECONDS / (time.perf_counter() - began))
    some = train.take_evenly(min(SEEN_IMAGES, max(TIMED_IMAGES, affordable)))
    (units,) = inspect_layers(model, some, [layer], UNITS)
    shown = []
    for unit in units.units:
        tiles = None
        if unit.patches:
            patches = [cut_patch(some, patch) for patch in unit.patches]
            tiles = draw_tiles(np.stack(patches), 3)
        shown.append([unit.number + 1, unit.describe_best(), tiles])
    return {
        "searched": len(some),
        "units": units.count,
        "field": describe_field(units.receptive_field),
        "shown": shown,
    }


def look_at(folder: DataFolder, run: str, image: Image = FIRST) -> dict[str, Any]:
    """The prediction for an image, and the outputs of the layers."""
    path = folder.find_run(run)
    is_of_page = not isinstance(image, bytes) and not image[0]
    if is_of_page and not (path / "model.safetensors").exists():
        return {"problem": f"{run} has no saved weights yet."}  # no error while it trains
    opened = open_run(path)
    pixels, target = _read(opened, image)
    (prediction,) = opened.predictor.predict(pixels)
    values = list(prediction.values.items())
    if opened.task.kind is not REGRESSION:
        values = sorted(values, key=lambda pair: -pair[1])[:SHOWN_VALUES]
    return {
        "predicted": describe(prediction),
        "values": values,
        "target": target,
        "kind": opened.task.kind.name,
        **draw_inside(opened.predictor.model, pixels),
    }


def explain(folder: DataFolder, run: str, image: Image = FIRST) -> dict[str, Any]:
    """The attribution map of the prediction for an image, and how faithful it is."""
    opened = open_run(folder.find_run(run))
    return explain_image(opened.predictor.model, _read(opened, image)[0])


def find_similar(folder: DataFolder, run: str, image: Image = FIRST) -> dict[str, Any]:
    """The training images whose features are most similar to the features of an image."""
    opened = open_run(folder.find_run(run))
    return opened.training_images.find(_read(opened, image)[0])


def _read(opened: Opened, image: Image) -> tuple[UInt8[np.ndarray, "1 h w c"], str | None]:
    """An image's pixels, decoded as for a prediction, and the target if the run has the image."""
    if isinstance(image, bytes):
        with closing(decode_ahead([image], opened.predictor.input_format)) as chunks:
            chunk = next(chunks)
        if (reason := chunk.reasons[0]) is not None:
            raise DataError(
                f"This file cannot be used: {reason}. Choose an image, such as a JPEG or PNG."
            )
        return chunk.pixels, None
    splits = {str(split): images for split, images in opened.dataset.splits.items()}
    split, row = image
    images = splits.get(split) or splits.get("val") or splits.get("test") or splits["train"]
    row %= len(images)
    target = images.kind.format(images.targets[row], images.target_names)
    return np.asarray(images.pixels[row : row + 1]), target


def list_differences(first: RunFolder, second: RunFolder) -> list[dict[str, str]]:
    """How settings and training differ, in the words of the page."""
    labels = SETTINGS | {f"recipe.{name}": label for name, label in LABELS.items()}
    rows = []
    for item in compare_runs(first, second):
        label = labels.get(item.what)
        if item.what.startswith("net, "):
            label = item.what.removeprefix("net, ").capitalize()
        if label is not None:
            rows.append({"what": label, "first": item.first, "second": item.second})
    return rows


def compare_with(folder: DataFolder, run: str, others: tuple[str, ...]) -> dict[str, Any]:
    """Compare runs with a run: settings, scores and disagreements, or why that is impossible."""
    paths = {name: folder.find_run(name) for name in (run, *others)}
    differences = {
        other: list_differences(RunFolder(paths[run]), RunFolder(paths[other])) for other in others
    }
    problems: list[str] = []
    evaluated = {name: _open_evaluated(path, problems) for name, path in paths.items()}
    opened = {name: found for name, found in evaluated.items() if found is not None}
    judged: list[PairedComparison] = []
    disagreements = {}
    if run in opened:
        for other in others:
            if other not in opened:
                continue
            pair = {other: opened[other], run: opened[run]}
            try:
                judged += _judge(pair)
                disagreements[other] = show_disagreements(pair)
            except LaminaError as error:
                problems.append(f"{other} cannot be compared with {run}: {error.problem}")
    if len(judged) > 1:
        together = {name: opened[name] for name in (*disagreements, run)}
        try:
            judged = _judge(together)
        except LaminaError as error:  # together, they share too few images
            judged = []
            problems.append(error.problem)
    return {
        "differences": differences,
        "problems": problems,
        "judged": [comparison.to_json() for comparison in judged],
        "disagreements": disagreements,
    }


def _judge(opened: dict[str, Opened]) -> list[PairedComparison]:
    """Compare runs with the last one."""
    return judge_runs({name: [found.run] for name, found in opened.items()})


def _open_evaluated(path: Path, problems: list[str]) -> Opened | None:
    """Open a run; ``None``, with a problem added to the list, if it cannot be compared."""
    try:
        if (path / "report.json").exists():
            return open_run(path)
        problems.append(f"{path.name} has not been evaluated yet; only its settings are compared.")
    except LaminaError as error:
        problems.append(error.problem)
    return None


def show_disagreements(pair: dict[str, Opened]) -> list[dict[str, Any]]:
    """Shared images on which two runs disagree, with pixels and targets of the newer run."""
    evaluated = [find_evaluated(opened.run) for opened in pair.values()]
    first, second = align_images(evaluated).runs
    differing = find_differing(first.task, first.outputs, second.task, second.outputs)
    newer = evaluated.index(find_newest(evaluated))
    newer_name = list(pair)[newer]
    groups = []
    for better, rows in differing.items():
        some = rows[:PAIR_TILES]
        places = []
        predictions = []
        for run, part in zip(evaluated, (first, second), strict=True):
            rows_of_run = _find_rows(run.outputs, part.outputs, some)
            places.append(rows_of_run)
            predictions.append(describe_rows(run.task, run.outputs, rows_of_run)[1])
        shown = show_tiles(pair[newer_name], evaluated[newer].outputs, places[newer])
        for image, predicted, other in zip(shown["images"], *predictions, strict=True):
            image["predicted"] = predicted
            image["other"] = other
        groups.append({"better": better, "count": len(rows), "run": newer_name, **shown})
    return groups


def _find_rows(
    outputs: Outputs, part: Outputs, rows: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " m"]:
    """The rows in all outputs of some rows of a part."""
    places = {name: place for place, name in enumerate(outputs.names)}
    return np.array([places[part.names[row]] for row in rows.tolist()], np.int64)
