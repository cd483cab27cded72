"""Images on a report page: confused classes, the largest losses, and the units of the net."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from lamina.data import Images
from lamina.data.thumbnails import to_pillow
from lamina.drawing.style import encode_png
from lamina.drawing.unit_sheets import build_units_sheet
from lamina.errors import plural
from lamina.evaluation.calibration import judge_predictions
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import ClassReport, Report
from lamina.insight.confusions import Confusions, find_confusions
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.units import inspect_layers
from lamina.markup import LONGEST_NAME, Markup, chart, image, join, link, matrix, table, wrap
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.text import format_percent, shorten
from lamina.training.model import Model
from lamina.training.task import Task

# of the images behind the confusions; charts and sheets add about one million more
IMAGES_BYTES = 6_000_000
MOST_OF_CELL, MOST_LOSSES = 30, 24
# of a confusion matrix, and of the list of pairs that replaces a larger matrix
MOST_CLASSES, MOST_PAIRS = (25, 50)
IMAGE_PX, IMAGE_QUALITY = 96, 90
# searched for patches: fewer large images
SEEN_IMAGES, LEAST_SEEN, SEEN_PIXELS = (500, 50, 2_000_000)
SHOWN_LAYERS, SHOWN_UNITS = 2, 12


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
        confusions = find_confusions(task, [outputs], MOST_LOSSES)
        return Evidence(task, outputs, images, confusions)


class _Cell(NamedTuple):
    """The images with one target and one prediction, the largest loss first."""

    target: str
    predicted: str
    rows: Int64[np.ndarray, " m"]
    is_correct: bool


def show_confusions(report: Report, evidence: Evidence) -> Markup:
    """The confusion matrix or the confused pairs, linked to their images; nothing for numbers."""
    if evidence.task.kind is REGRESSION:
        return Markup("")
    if isinstance(report, ClassReport) and len(report.classes) <= MOST_CLASSES:
        return _show_matrix(report, evidence)
    return _show_pairs(evidence)


def _show_matrix(report: ClassReport, evidence: Evidence) -> Markup:
    ((names, rows_of_cells),) = evidence.confusions.tables
    cells = [
        _Cell(names[truth], names[predicted], rows, truth == predicted)
        for (truth, predicted), rows in rows_of_cells.items()
    ]
    remark, album, shown = _show_cells(cells, evidence)
    links = dict(zip(rows_of_cells, _link_cells(cells, shown), strict=True))
    lines = []
    for row, scores in enumerate(report.classes):
        line = []
        for column, count in enumerate(report.confusion[row]):
            line.append((links.get((row, column), "0"), count / max(1, scores.support)))
        lines.append((scores.name, line))
    head = "Rows: true class. Columns: predicted class. Shade: share of the true class."
    classes = [scores.name for scores in report.classes]
    return join([wrap("p", head), remark, matrix(classes, lines, "true \\ predicted"), album])


def _show_pairs(evidence: Evidence) -> Markup:
    pairs = evidence.confusions.pairs
    if not pairs:
        return wrap("p", "All predictions are correct.")
    listed = [
        _Cell(pair.target, str(pair.predicted), pair.rows, is_correct=False)
        for pair in pairs[:MOST_PAIRS]
    ]
    remark, album, shown = _show_cells(listed, evidence)
    lines = []
    for pair, counted in zip(pairs, _link_cells(listed, shown), strict=False):
        _, *counts = pair.describe()
        lines.append((pair.target, str(pair.predicted), counted, *counts))
    heads = ("true", "predicted", "images", "of", "share", "95 % interval")
    some = ""
    if len(pairs) > len(listed):
        some = f"; the table lists the {len(listed)} with the highest lower confidence bound"
    head = wrap("p", f"Confused pairs: {len(pairs):,}{some}.")
    return join([head, remark, table(heads, lines, texts=2), album])


def _link_cells(cells: Sequence[_Cell], shown: Sequence[int]) -> list[str]:
    """The number of images of each cell, linked to its images if the page shows some."""
    return [
        (
            link(f"{len(cell.rows):,}", f"cell-{number}", f"{len(cell.rows):,}: {_name_cell(cell)}")
            if count
            else f"{len(cell.rows):,}"
        )
        for number, (cell, count) in enumerate(zip(cells, shown, strict=True))
    ]


def _name_cell(cell: _Cell) -> str:
    predicted = "correctly" if cell.is_correct else f"as {shorten(cell.predicted, LONGEST_NAME)}"
    return f"{shorten(cell.target, LONGEST_NAME)} predicted {predicted}"


def _show_cells(cells: Sequence[_Cell], evidence: Evidence) -> tuple[Markup, Markup, list[int]]:
    """A remark, the images of the cells, hidden behind links, and the number shown per cell."""
    if evidence.images is None:
        return Markup(""), Markup(""), [0] * len(cells)
    images, sure = evidence.images, _describe_confidence(evidence)
    figures = _fill_album(cells, images, sure)
    parts = []
    for number, (cell, own) in enumerate(zip(cells, figures, strict=True)):
        if not own:
            continue
        some = (
            ""
            if len(own) == len(cell.rows)
            else f"; shown are the {len(own):,} with the largest loss"
        )
        title = f"{_name_cell(cell)}: {len(cell.rows):,}{some}"
        back = wrap("p", link("back to the table", "confusions"))
        shown_here = wrap("h3", title), wrap("div", *own, kind="images"), back
        parts.append(wrap("div", *shown_here, kind="cell", name=f"cell-{number}"))
    counts = [len(own) for own in figures]
    shown, whole = sum(counts), sum(len(cell.rows) for cell in cells)
    remark = f"Select a number to see its images. This page has {shown:,} of {whole:,} images"
    remark += "." if shown == whole else "; the others are left out to keep the file small."
    return wrap("p", remark, kind="faint screen"), join(parts), counts


def _fill_album(cells: Sequence[_Cell], images: Images, sure: Sequence[str]) -> list[list[Markup]]:
    """The first images of each cell, at most 30; errors come before correct predictions."""
    wanted = sorted(
        (cell.is_correct, place, number)
        for number, cell in enumerate(cells)
        for place in range(min(MOST_OF_CELL, len(cell.rows)))
    )
    shown: list[list[Markup]] = [[] for _ in cells]
    room = IMAGES_BYTES
    for _, place, number in wanted:
        row = int(cells[number].rows[place])
        figure = _show_image(images, row, sure[row])
        room -= len(figure)
        if room < 0:
            break
        shown[number].append(figure)
    return shown


def show_losses(evidence: Evidence) -> Markup:
    task = evidence.task
    hardest = evidence.confusions.hardest
    if evidence.images is None:
        lines = [
            (image.image, image.true, image.predicted, f"{image.loss:.3g}") for image in hardest
        ]
        return table(("image", "true", "predicted", "loss"), lines, texts=3)
    sure = _describe_confidence(evidence)
    figures = []
    for hard in hardest:
        if task.kind is REGRESSION:
            caption = _pair_numbers(evidence, hard.row)
        else:
            target = shorten(hard.true, LONGEST_NAME)
            predicted = shorten(hard.predicted, LONGEST_NAME)
            caption = f"{target} → {predicted} {sure[hard.row]}".strip()
        figures.append(_show_image(evidence.images, hard.row, caption))
    head = "Target → prediction."
    if any(sure):
        head = "Target → prediction, with its probability."
    if task.kind is REGRESSION:
        head = f"Target → prediction, for {shorten(', '.join(task.target_names), 200)}."
    return join([wrap("p", head, kind="faint"), wrap("div", *figures, kind="images")])


def _pair_numbers(evidence: Evidence, row: int) -> str:
    pairs = zip(
        evidence.outputs.targets[row].tolist(), evidence.outputs.logits[row].tolist(), strict=True
    )
    return ", ".join(f"{true:.3g} → {number:.3g}" for true, number in pairs)


def _describe_confidence(evidence: Evidence) -> list[str]:
    """The probability of each prediction as text; empty for labels and numbers."""
    outputs, task = evidence.outputs, evidence.task
    if task.kind not in (SINGLE_LABEL, BINARY):
        return [""] * len(outputs.logits)
    targets = torch.from_numpy(np.array(outputs.targets))
    confidence, _ = judge_predictions(task, torch.from_numpy(outputs.logits).double(), targets)
    return [format_percent(one).replace(" ", "\u00a0") for one in confidence.tolist()]


def _show_image(images: Images, row: int, caption: str) -> Markup:
    name, pixels, encoded = images.names[row], to_pillow(images.pixels[row]), io.BytesIO()
    pixels.thumbnail((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    pixels.save(encoded, "JPEG", quality=IMAGE_QUALITY, subsampling=0)
    lines = [shorten(caption, 100), Markup("<br>")] if caption else []
    text = wrap("figcaption", *lines, wrap("span", shorten(name.rsplit("/", 1)[-1]), kind="faint"))
    return wrap("figure", image(encoded.getvalue(), name), text)


def show_units(model: Model, train: Images) -> Markup:
    """A sheet for each of the first two layers: the training patches that excite its units most."""
    _, height, width = train.shape
    some = train.take_evenly(min(SEEN_IMAGES, max(LEAST_SEEN, SEEN_PIXELS // (height * width))))
    layers = choose_layers(model)[:SHOWN_LAYERS]
    count = plural(len(some), "training image", "training images")
    remark = (
        f"For each unit: the patches of {count} that excite it most, and the class that its"
        " response separates best, with the area under the ROC curve."
    )
    parts = [wrap("p", remark, kind="faint")]
    for units in inspect_layers(model, some, layers, SHOWN_UNITS):
        sheet = encode_png(build_units_sheet(units))
        parts.append(chart(sheet, f"patches that excite units of layer {units.name}", "sheet"))
    return join(parts)
