"""Images on a report page: confused classes, the largest losses, and the units of the net."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image

from lamina.data import Images
from lamina.data.thumbnails import to_pillow
from lamina.drawing.style import encode_png
from lamina.drawing.unit_sheets import build_units_sheet
from lamina.errors import plural
from lamina.evaluation.calibration import judge_predictions
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import ClassReport, Report
from lamina.insight.confusions import (
    find_cells,
    find_confusions,
    format_predictions,
    measure_losses,
)
from lamina.insight.inspected_layers import choose_layers, name_stage, read_filters
from lamina.insight.units import inspect_units, measure_chance, measure_responses, rank_units
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
    losses: Float[np.ndarray, " n"]

    @staticmethod
    def collect(task: Task, outputs: Outputs, images: Images | None) -> Evidence:
        """The evidence, without ``images`` if ``outputs`` belong to other images."""
        fits = images is not None and images.names == outputs.names
        losses = measure_losses(task, outputs.raw_logits(task), outputs.targets)
        return Evidence(task, outputs, images if fits else None, losses)


class _Cell(NamedTuple):
    """The images with one target and one prediction, the largest loss first."""

    target: str
    predicted: str
    rows: Int64[np.ndarray, " m"]
    is_correct: bool


def show_confusions(report: Report, evidence: Evidence) -> Markup:
    """The confusion matrix or the confused pairs, linked to their images; nothing for numbers."""
    task = evidence.task
    if task.kind is REGRESSION:
        return Markup("")
    if isinstance(report, ClassReport) and len(report.classes) <= MOST_CLASSES:
        cells = _find_cells(report, evidence)
        remark, album, shown = _show_cells(list(cells.values()), evidence)
        links = dict(zip(cells, _link_cells(list(cells.values()), shown), strict=True))
        names = [scores.name for scores in report.classes]
        rows = [
            (
                name,
                [
                    (
                        links.get((row, column), "0"),
                        report.confusion[row][column] / max(1, scores.support),
                    )
                    for column in range(len(names))
                ],
            )
            for row, (name, scores) in enumerate(zip(names, report.classes, strict=True))
        ]
        head = "Rows: true class. Columns: predicted class. Shade: share of the true class."
        return join([wrap("p", head), remark, matrix(names, rows, "true \\ predicted"), album])
    _, pairs = find_confusions(task, evidence.outputs.logits, evidence.outputs.targets)
    if not pairs:
        return wrap("p", "All predictions are correct.")
    listed = [
        _Cell(pair.target, str(pair.predicted), pair.rows, is_correct=False)
        for pair in pairs[:MOST_PAIRS]
    ]
    remark, album, shown = _show_cells(listed, evidence)
    lines = [
        (
            pair.target,
            str(pair.predicted),
            counted,
            f"{pair.images:,}",
            format_percent(len(pair.rows) / pair.images),
            f"{100 * pair.interval.low:.1f} to {100 * pair.interval.high:.1f} %",
        )
        for pair, counted in zip(pairs, _link_cells(listed, shown), strict=False)
    ]
    heads = ("true", "predicted", "images", "of", "share", "95 % interval")
    some = f"; the table lists the {len(listed)} with the highest lower confidence bound"
    some = some if len(pairs) > len(listed) else ""
    head = wrap("p", f"Confused pairs: {len(pairs):,}{some}.")
    return join([head, remark, table(heads, lines, texts=2), album])


def _find_cells(report: ClassReport, evidence: Evidence) -> dict[tuple[int, int], _Cell]:
    ((_, cells),) = find_cells(evidence.task, evidence.outputs.logits, evidence.outputs.targets)
    names = [scores.name for scores in report.classes]
    return {
        (row, column): _Cell(names[row], names[column], own, row == column)
        for (row, column), own in cells.items()
    }


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
    outputs, task = evidence.outputs, evidence.task
    order = np.argsort(-evidence.losses, kind="stable")[:MOST_LOSSES]
    given = format_predictions(task, outputs.raw_logits(task)[order])
    true = [task.kind.format(outputs.targets[row], task.target_names) for row in order]
    if evidence.images is None:
        lines = [
            (outputs.names[row], truth, predicted, f"{evidence.losses[row]:.3g}")
            for row, truth, predicted in zip(order.tolist(), true, given, strict=True)
        ]
        return table(("image", "true", "predicted", "loss"), lines, texts=3)
    sure = _describe_confidence(evidence)
    captions = [
        (
            _pair_numbers(evidence, row)
            if task.kind is REGRESSION
            else (
                f"{shorten(truth, LONGEST_NAME)} → {shorten(predicted, LONGEST_NAME)} {sure[row]}"
            ).strip()
        )
        for row, truth, predicted in zip(order.tolist(), true, given, strict=True)
    ]
    figures = [
        _show_image(evidence.images, row, caption)
        for row, caption in zip(order.tolist(), captions, strict=True)
    ]
    head = "Target → prediction" + (", with its probability." if any(sure) else ".")
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
    parts = [
        wrap(
            "p",
            "For each unit: the patches of"
            f" {plural(len(some), 'training image', 'training images')} that excite it most, and"
            " the class that its response separates best, with the area under the ROC curve.",
            kind="faint",
        )
    ]
    for path, responses in measure_responses(model, some.pixels, layers).items():
        numbers = rank_units(responses, some)[:SHOWN_UNITS]
        units = inspect_units(responses, some, numbers)
        name, count = name_stage(model, path), responses.strengths.shape[1]
        field = "the whole image" if responses.field is None else f"{responses.field}"
        title = f"layer {name}: {len(units)} of {plural(count, 'unit', 'units')}"
        remark = (
            f"receptive field: {field}; the best unit reaches {measure_chance(responses, some):.2f}"
            " by chance"
        )
        sheet = build_units_sheet(some, units, title, remark, read_filters(model, path))
        parts.append(
            chart(encode_png(sheet), f"patches that excite units of layer {name}", "sheet")
        )
    return join(parts)
