"""Sheets of a data set's images: samples of each class, label issues, and hard images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from lamina.data import Images
from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import SheetRow, break_rows, lay_out
from lamina.insight.confident_learning import LabelIssue
from lamina.insight.confusions import Confusion
from lamina.targets import REGRESSION
from lamina.text import shorten

SIDES_PX = {12: 128, 30: 96, 200: 64}  # of an image, on sheets of up to so many rows
COLUMNS = 8
MOST_ROWS = 200
MOST_LABEL_ISSUES = 80
MOST_PAIRS = 10


def build_contact_sheet(images: Images, samples: int) -> Image.Image:
    """A sheet of ``samples`` images of each class, label or number, numbers from low to high."""
    samples_by_name = images.choose_samples(samples)
    counts = images.target_counts()
    side = _choose_side(min(MOST_ROWS, len(samples_by_name)))
    rows = []
    for column, (name, chosen) in enumerate(samples_by_name.items()):
        captions: list[tuple[str, ...]] = []
        remark = "low to high"
        if images.kind is REGRESSION:
            captions = [(f"{images.targets[row, column]:.3g}",) for row in chosen]
        if counts:
            remark = f"{counts[name]:,}"
        tiles = [make_tile(images.pixels[row], side) for row in chosen]
        rows.append(SheetRow(tiles, captions, shorten(name), remark))
        if len(rows) == MOST_ROWS:
            break
    described = images.kind.describe([shorten(name) for name in images.target_names])
    rest = _count_rest(len(samples_by_name) - len(rows))
    return lay_out(rows, f"{images.split}: {len(images):,} images, {described}", rest=rest)


def build_label_issues_sheet(
    issues: Sequence[tuple[Images, LabelIssue]], title: str
) -> Image.Image:
    """A sheet of the first label issues: each image with its given and likely label and score."""
    tiles = []
    captions = []
    for images, issue in issues[:MOST_LABEL_ISSUES]:
        tiles.append(make_tile(images.pixels[issue.row], _choose_side(1)))
        captions.append((shorten(issue.given), f"→ {shorten(issue.likely)}", f"{issue.score:.2f}"))
    rest = _count_rest(len(issues) - len(tiles))
    return lay_out(break_rows(tiles, captions, COLUMNS), title, rest=rest)


def build_hard_sheet(
    losses: Sequence[tuple[Images, int, str, str]],
    pairs: Sequence[tuple[Confusion, Sequence[tuple[Images, int]]]],
    title: str,
) -> Image.Image:
    """A sheet of the largest losses and of confused pairs of classes; an image is (split, row)."""
    side = _choose_side(-(-len(losses) // COLUMNS) + min(MOST_PAIRS, len(pairs)))
    first, *more = break_rows(
        [make_tile(images.pixels[row], side) for images, row, _, _ in losses],
        [(shorten(target), f"→ {shorten(predicted)}") for _, _, target, predicted in losses],
        COLUMNS,
    )
    rows = [replace(first, name="largest losses", remark="target → prediction"), *more]
    for pair, rows_of_images in pairs[:MOST_PAIRS]:
        low = 100 * pair.interval.low
        high = 100 * pair.interval.high
        tiles = [make_tile(images.pixels[row], side) for images, row in rows_of_images[:COLUMNS]]
        name = f"{shorten(pair.target)} → {shorten(str(pair.predicted))}"
        remark = f"{len(pair.rows):,} of {pair.images:,}: {low:.1f} to {high:.1f} %"
        rows.append(SheetRow(tiles, (), name, remark))
    return lay_out(rows, title, rest=_count_rest(len(pairs) - MOST_PAIRS, " pairs"))


def _count_rest(count: int, noun: str = "") -> str:
    return f"and {count:,} more{noun}, not drawn" if count > 0 else ""


def _choose_side(rows: int) -> int:
    return next(side for most, side in SIDES_PX.items() if rows <= most)
