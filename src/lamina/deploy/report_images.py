"""Images on a report page: confused classes, the largest losses, and the units of the net."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
from lamina.insight.confusions import PAIR_HEADS, Confusion, Confusions, find_confusions
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.units import inspect_layers
from lamina.markup import LONGEST_NAME, Markup, chart, image, join, link, matrix, show, table, wrap
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


def show_confusions(report: Report, evidence: Evidence) -> Markup:
    """The confusion matrix or the confused pairs, linked to their images; nothing for numbers."""
    if evidence.task.kind is REGRESSION:
        return Markup("")
    if evidence.task.kind is not MULTI_LABEL and len(report.rows) <= MOST_CLASSES:
        return _show_matrix(report, evidence)
    return _show_pairs(evidence)


def _show_matrix(report: Report, evidence: Evidence) -> Markup:
    (confusions,) = evidence.confusions.tables
    names = confusions.names
    places = [(row, column) for row, column in np.argwhere(confusions.count()).tolist()]
    cells = []
    for truth, predicted in places:
        rows = confusions.rows(truth, predicted)
        cells.append(Confusion(names[truth], names[predicted], rows, report.rows[truth].images))
    remark, album, counts = _show_cells(cells, evidence)
    links = dict(zip(places, counts, strict=True))
    lines = []
    for row, counts_of_row in enumerate(report.confusion()):
        line = []
        for column, count in enumerate(counts_of_row):
            line.append((links.get((row, column), "0"), count / max(1, report.rows[row].images)))
        lines.append((report.rows[row].name, line))
    head = "Rows: true class. Columns: predicted class. Shade: share of the true class."
    return join([wrap("p", head), remark, matrix(names, lines, "true \\ predicted"), album])


def _show_pairs(evidence: Evidence) -> Markup:
    pairs = evidence.confusions.pairs
    if not pairs:
        return wrap("p", "All predictions are correct.")
    listed = pairs[:MOST_PAIRS]
    remark, album, counts = _show_cells(listed, evidence)
    lines = []
    for pair, count in zip(listed, counts, strict=True):
        lines.append((pair.target, str(pair.predicted), count, *pair.describe()[1:]))
    true, predicted, _, *heads = PAIR_HEADS
    some = ""
    if len(pairs) > len(listed):
        some = f"; the table lists the {len(listed)} with the highest lower confidence bound"
    head = wrap("p", f"Confused pairs: {len(pairs):,}{some}.")
    return join([head, remark, table((true, predicted, *heads), lines, texts=2), album])


def _name_cell(cell: Confusion) -> str:
    predicted = "correctly"
    if cell.predicted != cell.target:
        predicted = f"as {shorten(str(cell.predicted), LONGEST_NAME)}"
    return f"{shorten(cell.target, LONGEST_NAME)} predicted {predicted}"


def _show_cells(cells: Sequence[Confusion], evidence: Evidence) -> tuple[Markup, Markup, list[str]]:
    """A remark, the images of the cells, hidden behind links, and the linked counts."""
    counts = [f"{len(cell.rows):,}" for cell in cells]
    if evidence.images is None:
        return Markup(""), Markup(""), counts
    parts = []
    shown = 0
    for number, figures in enumerate(_fill_album(cells, evidence.images, evidence.confidence)):
        if not figures:
            continue
        cell = cells[number]
        title = f"{_name_cell(cell)}: {counts[number]}"
        if len(figures) < len(cell.rows):
            title += f"; shown are the {len(figures):,} with the largest loss"
        head = wrap("h3", title)
        back = wrap("p", link("back to the table", "confusions"))
        name = f"cell-{number}"
        album = wrap("div", *figures, kind="images")
        parts.append(wrap("div", head, album, back, kind="cell", name=name))
        counts[number] = link(counts[number], name, f"{counts[number]}: {_name_cell(cell)}")
        shown += len(figures)
    whole = sum(len(cell.rows) for cell in cells)
    remark = f"Select a number to see its images. This page has {shown:,} of {whole:,} images"
    remark += "." if shown == whole else "; other images are left out to keep the file small."
    return wrap("p", remark, kind="faint screen"), join(parts), counts


def _fill_album(
    cells: Sequence[Confusion], images: Images, captions: Sequence[str]
) -> list[list[Markup]]:
    """The first images of each cell, at most 30; errors come before correct predictions."""
    wanted = sorted(
        (cell.target == cell.predicted, place, number)
        for number, cell in enumerate(cells)
        for place in range(min(MOST_OF_CELL, len(cell.rows)))
    )
    shown: list[list[Markup]] = [[] for _ in cells]
    room = IMAGES_BYTES
    for _, place, number in wanted:
        row = int(cells[number].rows[place])
        figure = _show_image(images, row, captions[row])
        room -= len(figure)
        if room < 0:
            break
        shown[number].append(figure)
    return shown


def show_losses(evidence: Evidence) -> Markup:
    task = evidence.task
    if evidence.images is None:
        return table(*evidence.confusions.image_table(), texts=4)
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
    return join([wrap("p", head, kind="faint"), wrap("div", *figures, kind="images")])


def _pair_numbers(outputs: Outputs, row: int) -> str:
    pairs = zip(outputs.targets[row].tolist(), outputs.logits[row].tolist(), strict=True)
    return ", ".join(f"{true:.3g} → {number:.3g}" for true, number in pairs)


def _show_image(images: Images, row: int, caption: str) -> Markup:
    pixels = to_pillow(images.pixels[row])
    pixels.thumbnail((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    pixels.save(encoded, "JPEG", quality=IMAGE_QUALITY, subsampling=0)
    name = images.names[row]
    lines = [wrap("span", shorten(name.rsplit("/", 1)[-1]), kind="faint")]
    if caption:
        lines = [show(shorten(caption, 100)), Markup("<br>"), *lines]
    return wrap("figure", image(encoded.getvalue(), name), wrap("figcaption", *lines))


def show_units(model: Model, train: Images) -> Markup:
    """A sheet for each of the first two layers: the training patches that excite its units most."""
    _, height, width = train.shape
    some = train.take_evenly(min(SEEN_IMAGES, max(LEAST_SEEN, SEEN_PIXELS // (height * width))))
    layers = choose_layers(model)[:SHOWN_LAYERS]
    parts = []
    for units in inspect_layers(model, some, layers, SHOWN_UNITS):
        sheet = encode_png(build_units_sheet(units))
        described = f"patches that excite units of layer {units.name}. {explain_sheet(units)}"
        parts.append(chart(sheet, described, "sheet"))
    return join(parts)
