"""Images on a report page: confused classes, the largest losses, and the units of the net."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from lamina.data import Images
from lamina.data.thumbnails import to_pillow
from lamina.drawing.style import encode_png
from lamina.drawing.unit_sheets import build_units_sheet, explain_sheet
from lamina.evaluation.calibration import judge_predictions
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Report
from lamina.insight.confusions import (
    PAIR_HEADS,
    Confusion,
    Confusions,
    ConfusionTable,
    find_confusions,
)
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.units import inspect_layers
from lamina.markup import LONGEST_NAME, link
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL
from lamina.text import format_percent, shorten
from lamina.training.model import Model
from lamina.training.task import Task

# of the images behind the confusions; charts and sheets add about one million more
IMAGES_BYTES = 6_000_000
MOST_OF_CELL = 30
MOST_LOSSES = 24
# of a confusion matrix, and of the list of pairs that replaces a larger matrix
MOST_CLASSES = 25
MOST_PAIRS = 50
IMAGE_PX = 96
IMAGE_QUALITY = 90
# searched for patches: fewer large images
SEEN_IMAGES = 500
LEAST_SEEN = 50
SEEN_PIXELS = 2_000_000
SHOWN_LAYERS = 2
SHOWN_UNITS = 12


class Figure(NamedTuple):
    """An image of the page, with its text."""

    jpeg: bytes
    name: str
    caption: str


@dataclass(frozen=True, eq=False)
class Cell:
    """The images with one true and one predicted class.

    ``name`` is the name of its element, and ``figures`` are the images that the page has room for.
    """

    name: str
    confusion: Confusion
    figures: Sequence[Figure]

    @property
    def title(self) -> str:
        target = shorten(self.confusion.target, LONGEST_NAME)
        if self.confusion.predicted == self.confusion.target:
            return f"{target} predicted correctly"
        return f"{target} predicted as {shorten(str(self.confusion.predicted), LONGEST_NAME)}"

    @property
    def number(self) -> str:
        return f"{len(self.confusion.rows):,}"

    @property
    def count(self) -> str:
        """The number of images, linked to them."""
        if not self.figures:
            return self.number
        return link(self.number, self.name, f"{self.number}: {self.title}")


@dataclass(frozen=True, eq=False)
class Evidence:
    """A model's logits for the images it was evaluated on, and the images, if available."""

    task: Task
    outputs: Outputs
    images: Images | None
    confusions: Confusions

    @staticmethod
    def collect(task: Task, outputs: Outputs, images: Images | None) -> Evidence:
        """The evidence, without ``images`` if ``outputs`` belong to other images."""
        if images is not None and images.names != outputs.names:
            images = None
        return Evidence(task, outputs, images, find_confusions(task, [outputs], MOST_LOSSES))

    @cached_property
    def confidence(self) -> list[str]:
        """The probability of each prediction as text; empty for labels and numbers."""
        if self.task.kind not in (SINGLE_LABEL, BINARY):
            return [""] * len(self.outputs.logits)
        logits = torch.from_numpy(self.outputs.logits).double()
        targets = torch.from_numpy(np.array(self.outputs.targets))
        confidence, _ = judge_predictions(self.task, logits, targets)
        return [format_percent(share).replace(" ", "\u00a0") for share in confidence.tolist()]


def show_confusions(report: Report, evidence: Evidence) -> dict[str, Any]:
    """The confusion matrix or the confused pairs, with their images."""
    task = evidence.task
    confusions = evidence.confusions
    values: dict[str, Any]
    if task.kind is not MULTI_LABEL and len(report.rows) <= MOST_CLASSES:
        (table,) = confusions.tables
        cells = _fill_cells(_list_cells(table, report), evidence)
        values = {"classes": table.names, "matrix_rows": _arrange(cells, table.names)}
    else:
        cells = _fill_cells(confusions.pairs[:MOST_PAIRS], evidence)
        true, predicted, _, *heads = PAIR_HEADS
        rows = []
        for cell in cells:
            pair = cell.confusion
            rows.append((pair.target, str(pair.predicted), cell.count, *pair.describe()[1:]))
        values = {
            "pairs": f"{len(confusions.pairs):,}",
            "are_some": len(cells) < len(confusions.pairs),
            "pair_heads": (true, predicted, *heads),
            "pair_rows": rows,
        }
    if evidence.images is not None:
        values["shown"] = f"{sum(len(cell.figures) for cell in cells):,}"
        values["whole"] = f"{sum(len(cell.confusion.rows) for cell in cells):,}"
    return {"cells": cells, **values}


def _list_cells(table: ConfusionTable, report: Report) -> list[Confusion]:
    """The cells of a confusion matrix that have images."""
    cells = []
    for truth, predicted in np.argwhere(table.count()).tolist():
        names = table.names[truth], table.names[predicted]
        rows = table.rows(truth, predicted)
        cells.append(Confusion(*names, rows, report.rows[truth].images))
    return cells


def _arrange(
    cells: Sequence[Cell], names: Sequence[str]
) -> list[tuple[str, list[tuple[str, float]]]]:
    """The rows of a confusion matrix: the number of images, and their share of the true class."""
    contents = {}
    for cell in cells:
        share = len(cell.confusion.rows) / cell.confusion.images
        contents[cell.confusion.target, cell.confusion.predicted] = cell.count, share
    return [(name, [contents.get((name, other), ("0", 0.0)) for other in names]) for name in names]


def _fill_cells(confusions: Sequence[Confusion], evidence: Evidence) -> list[Cell]:
    """Cells with their first images, at most 30; errors come before correct predictions."""
    figures: list[list[Figure]] = [[] for _ in confusions]
    wanted = sorted(
        (confusion.target == confusion.predicted, place, number)
        for number, confusion in enumerate(confusions)
        for place in range(min(MOST_OF_CELL, len(confusion.rows)))
    )
    room = IMAGES_BYTES
    for _, place, number in wanted:
        row = int(confusions[number].rows[place])
        if evidence.images is None:
            break
        figure = _show_image(evidence.images, row, evidence.confidence[row])
        room -= 4 * len(figure.jpeg) // 3  # in base64
        if room < 0:
            break
        figures[number].append(figure)
    return [
        Cell(f"cell-{number}", confusion, figures[number])
        for number, confusion in enumerate(confusions)
    ]


def show_losses(evidence: Evidence) -> dict[str, Any]:
    """The images with the largest losses, or a table without them."""
    task = evidence.task
    if evidence.images is None:
        return {"hardest": evidence.confusions.image_table()}
    head = "Target → prediction."
    if any(evidence.confidence):
        head = "Target → prediction, with its probability."
    if task.kind is REGRESSION:
        head = f"Target → prediction, for {shorten(', '.join(task.target_names), 200)}."
    figures = []
    for hard in evidence.confusions.hardest:
        target = shorten(hard.true, LONGEST_NAME)
        predicted = shorten(hard.predicted, LONGEST_NAME)
        caption = f"{target} → {predicted} {evidence.confidence[hard.row]}".strip()
        if task.kind is REGRESSION:
            caption = _pair_numbers(evidence.outputs, hard.row)
        figures.append(_show_image(evidence.images, hard.row, caption))
    return {"losses": figures, "losses_head": head}


def _pair_numbers(outputs: Outputs, row: int) -> str:
    pairs = zip(outputs.targets[row].tolist(), outputs.logits[row].tolist(), strict=True)
    return ", ".join(f"{true:.3g} → {number:.3g}" for true, number in pairs)


def _show_image(images: Images, row: int, caption: str) -> Figure:
    pixels = to_pillow(images.pixels[row])
    pixels.thumbnail((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    pixels.save(encoded, "JPEG", quality=IMAGE_QUALITY, subsampling=0)
    return Figure(encoded.getvalue(), images.names[row], caption)


def draw_units(model: Model, train: Images) -> list[tuple[bytes, str]]:
    """A sheet for each of the first two layers: the training patches that excite its units most."""
    _, height, width = train.shape
    some = train.take_evenly(min(SEEN_IMAGES, max(LEAST_SEEN, SEEN_PIXELS // (height * width))))
    layers = choose_layers(model)[:SHOWN_LAYERS]
    sheets = []
    for units in inspect_layers(model, some, layers, SHOWN_UNITS):
        described = f"patches that excite units of layer {units.name}. {explain_sheet(units)}"
        sheets.append((encode_png(build_units_sheet(units)), described))
    return sheets
