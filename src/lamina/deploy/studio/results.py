"""What the page shows of runs, as JSON values. These functions run in the torch process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8

from lamina.data import Dataset
from lamina.data.image_inputs import decode_ahead
from lamina.deploy.studio.data_folder import check_is_here
from lamina.deploy.studio.run_views import draw_inside, draw_thumbnail, draw_tiles
from lamina.deploy.web.explanation import (
    SIMILAR_SECONDS,
    TrainingImages,
    compute_features,
    explain_image,
)
from lamina.errors import DataError, LaminaError
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictor import Predictor, describe, make_prediction
from lamina.evaluation.words import give_verdict, list_lines
from lamina.insight.confusions import find_confusions, measure_losses
from lamina.insight.inspected_layers import choose_layers, describe_field, name_stage
from lamina.insight.units import cut_patch, inspect_layers, measure_responses
from lamina.runs.differences import compare_runs
from lamina.runs.loading import load_run
from lamina.runs.record import DataOrigin, resume_command
from lamina.runs.resuming import find_dataset
from lamina.runs.run import Run
from lamina.studies.judging import explain_incomparable, find_outputs, judge_runs
from lamina.targets import REGRESSION
from lamina.training.task import Task

Given: TypeAlias = bytes | tuple[str, int]
"""An image: the content of a file, or the split and row of one of the run's images (by default, of
``val``)."""
# images with one prediction, or of one disagreement, and their longer side
TILES, PAIR_TILES, TILE_PX = (30, 12, 96)
SHOWN_VALUES = 12  # classes or labels of a prediction
# training images that are searched for patches
UNITS, SEEN_IMAGES, TIMED_IMAGES, SEEN_SECONDS = (12, 500, 10, 5.0)
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
    return _open(path, tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files))


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


def show_report(path: Path) -> dict[str, Any]:
    """A run's report with confusions and largest losses, or why it has none; and the layers."""
    opened = open_run(path)
    model, report, task = opened.predictor.model, opened.run.report, opened.task
    layers = [[one, name_stage(model, one)] for one in choose_layers(model)]
    if report is None:
        remedy = (
            f"If it is paused, press Continue, or run {resume_command(path, opened.run.record)}."
        )
        return {
            "layers": layers,
            "missing": f"{path.name} is evaluated when its training has ended. {remedy}",
        }
    outputs = find_outputs(opened.run)
    confusions = find_confusions(task, [outputs])
    order = np.argsort(-confusions.losses, kind="stable")
    wrong = order[
        (_decide(task, outputs) != outputs.targets.reshape(len(order), -1)).any(axis=1)[order]
    ]
    are_wrong = task.kind is not REGRESSION and len(wrong) > 0
    return {
        "layers": layers,
        "verdict": give_verdict(report),
        "lines": list_lines(report),
        "table": report.table(),
        "report": report.to_json(),
        "confusions": [
            [names, [[*cell, len(rows)] for cell, rows in cells.items()]]
            for names, cells in confusions.tables
        ],
        "largest": (
            show_tiles(opened, outputs, (wrong if are_wrong else order)[:TILES])
            | {"are_wrong": are_wrong}
        ),
    }


def show_cell(path: Path, problem: int, truth: int, predicted: int) -> dict[str, Any]:
    """The images with a true and a predicted class, the largest loss first."""
    opened = open_run(path)
    outputs = find_outputs(opened.run)
    problems = find_confusions(opened.task, [outputs]).tables
    if not (0 <= problem < len(problems) and (truth, predicted) in problems[problem][1]):
        raise DataError(
            "There are no such images, because the run was evaluated again. Reload the page."
        )
    return show_tiles(opened, outputs, problems[problem][1][truth, predicted][:TILES])


def show_tiles(opened: Opened, outputs: Outputs, rows: Int64[np.ndarray, " m"]) -> dict[str, Any]:
    """Evaluated images with target and prediction; ``problem`` says why images are missing."""
    task, problem, images = opened.task, "", None
    try:
        images = opened.dataset.splits[outputs.split]
    except LaminaError as error:
        problem = f"The images are not shown. {error}"
    shown = []
    for row, (target, predicted) in zip(
        rows.tolist(), describe_rows(task, outputs, rows), strict=True
    ):
        png = None if images is None else draw_thumbnail(images.pixels[row], TILE_PX)
        shown.append(
            {
                "row": row,
                "name": outputs.names[row],
                "target": target,
                "predicted": predicted,
                "png": png,
            }
        )
    return {"split": outputs.split, "problem": problem, "images": shown}


def describe_rows(
    task: Task, outputs: Outputs, rows: Int64[np.ndarray, " m"]
) -> list[tuple[str, str]]:
    """The targets of some images, and the predictions with their probabilities."""
    if task.kind is REGRESSION:
        sides = (outputs.targets[rows].tolist(), outputs.logits[rows].tolist())
        targets, found = (
            [", ".join(f"{number:.3g}" for number in own) for own in side] for side in sides
        )
        return list(zip(targets, found, strict=True))
    targets = [task.kind.format(outputs.targets[row], task.target_names) for row in rows]
    values = task.probabilities(torch.from_numpy(outputs.logits[rows])).tolist()
    return list(
        zip(targets, (describe(make_prediction(task, "", own)) for own in values), strict=True)
    )


def show_units(path: Path, layer: str) -> dict[str, Any]:
    """The units of a layer that separate a class best, with the patches that excite them most."""
    opened = open_run(path)
    model, train = opened.predictor.model, opened.dataset.train
    if layer not in choose_layers(model):
        raise DataError(f"{path.name} has no layer {layer[:100]!r}. Choose one from the list.")
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


def look_at(path: Path, image: Given) -> dict[str, Any]:
    """The prediction for an image, and the outputs of the layers."""
    opened = open_run(path)
    pixels, target = _read(opened, image)
    (prediction,) = opened.predictor.predict(pixels)
    values, kind = list(prediction.values.items()), opened.task.kind
    if kind is not REGRESSION:
        values = sorted(values, key=lambda pair: -pair[1])[:SHOWN_VALUES]
    shown = {
        "predicted": describe(prediction),
        "values": values,
        "target": target,
        "kind": kind.name,
    }
    return shown | draw_inside(opened.predictor.model, pixels)


def explain(path: Path, image: Given) -> dict[str, Any]:
    """The attribution map of the prediction for an image, and how faithful it is."""
    opened = open_run(path)
    return explain_image(opened.predictor.model, _read(opened, image)[0])


def find_similar(path: Path, image: Given) -> dict[str, Any]:
    """The training images whose features are most similar to those of an image."""
    opened = open_run(path)
    return opened.training_images.find(_read(opened, image)[0])


def _read(opened: Opened, image: Given) -> tuple[UInt8[np.ndarray, "1 h w c"], str | None]:
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
    images = splits.get(image[0]) or splits.get("val") or splits.get("test") or splits["train"]
    row = image[1] % len(images)
    return np.asarray(images.pixels[row : row + 1]), images.kind.format(
        images.targets[row], images.target_names
    )


def compare_with(runs_dir: Path, name: str, others: Sequence[str]) -> dict[str, Any]:
    """How runs differ from a run, score and disagree on its test images, or why they cannot."""
    run = load_run(runs_dir / name)
    differences = {other: _list_differences(run, load_run(runs_dir / other)) for other in others}
    problems: list[str] = []
    base = _open_evaluated(runs_dir / name, problems)
    opened: dict[str, Opened] = {}
    for other in others:
        other_run = _open_evaluated(runs_dir / other, problems)
        if base is None or other_run is None:
            continue
        reason = explain_incomparable(other_run.run, base.run)
        if reason is None:
            opened[other] = other_run
        else:
            problems.append(reason)
    judged = []
    disagreements = {}
    if base is not None and opened:
        runs = {other: [other_run.run] for other, other_run in opened.items()}
        judged = judge_runs({**runs, name: [base.run]})
        disagreements = {
            other: show_disagreements(other_run, base) for other, other_run in opened.items()
        }
    return {
        "differences": differences,
        "problems": problems,
        "judged": [comparison.to_json() for comparison in judged],
        "disagreements": disagreements,
    }


def _list_differences(run: Run, other: Run) -> list[dict[str, str]]:
    """How settings and courses differ; the page shows the results otherwise."""
    differences = compare_runs(run.folder, other.folder)
    return [vars(item) for item in differences if not item.what.startswith(("last ", "report."))]


def _open_evaluated(path: Path, problems: list[str]) -> Opened | None:
    """The run; ``None``, with another problem in the list, if it cannot be compared."""
    try:
        if (path / "report.json").exists():
            return open_run(path)
        problems.append(f"{path.name} has not been evaluated yet; only its settings are compared.")
    except LaminaError as error:
        problems.append(str(error))
    return None


def show_disagreements(opened: Opened, base: Opened) -> list[dict[str, Any]]:
    outputs, others = find_outputs(opened.run), find_outputs(base.run)
    found = []
    for better, rows in find_disagreements(opened.task, outputs, base.task, others).items():
        shown = show_tiles(opened, outputs, rows[:PAIR_TILES])
        of_base = describe_rows(base.task, others, rows[:PAIR_TILES])
        for image, (_, predicted) in zip(shown["images"], of_base, strict=True):
            image["other"] = predicted
        found.append({"better": better, "count": len(rows), **shown})
    return found


def find_disagreements(
    task: Task, outputs: Outputs, base_task: Task, others: Outputs
) -> dict[str, Int64[np.ndarray, " _"]]:
    """Images that only ``a`` or only ``b`` predicts correctly, or both wrongly but differently.

    For numbers, the closer prediction counts as correct. The largest difference of the losses comes
    first.
    """
    both = (task, outputs), (base_task, others)
    a, b = (_decide(*one) for one in both)
    truth = outputs.targets.reshape(a.shape).astype(np.float32)
    order = np.argsort(
        -np.abs(np.subtract(*(_measure_losses(*one) for one in both))), kind="stable"
    )
    if task.kind is REGRESSION:
        a_error, b_error = (np.abs(each - truth).mean(axis=1) for each in (a, b))
        masks = {"a": a_error < b_error, "b": b_error < a_error}
    else:
        a_right, b_right = ((each == truth).all(axis=1) for each in (a, b))
        masks = {
            "a": a_right & ~b_right,
            "b": b_right & ~a_right,
            "": ~a_right & ~b_right & (a != b).any(axis=1),
        }
    return {better: order[mask[order]] for better, mask in masks.items()}


def _measure_losses(task: Task, outputs: Outputs) -> Float[np.ndarray, " n"]:
    return measure_losses(task, outputs.raw_logits(task), outputs.targets)


def _decide(task: Task, outputs: Outputs) -> Float32[np.ndarray, "n m"]:
    decided = task.decide(torch.from_numpy(outputs.raw_logits(task)))
    return decided.float().reshape(len(decided), -1).numpy()
