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

SIDES_PX = ((12, 128), (30, 96), (200, 64))
"""Image side for sheets of up to N rows, as pairs (N, side); further rows are not drawn."""
COLUMNS = 8
MOST_LABEL_ISSUES, MOST_PAIRS = 80, 10


def build_contact_sheet(images: Images, samples: int) -> Image.Image:
    """A sheet of ``samples`` images of each class, label or number, numbers from low to high."""
    chosen, counts, most = images.choose_samples(samples), images.target_counts(), SIDES_PX[-1][0]
    names = list(chosen)
    captions: dict[str, list[tuple[str, ...]]] = {name: [] for name in names}
    if images.kind is REGRESSION:
        columns = dict(zip(names, images.targets.T, strict=True))
        captions = {
            name: [(f"{columns[name][row]:.3g}",) for row in rows] for name, rows in chosen.items()
        }
    side = _choose_side(min(most, len(names)))
    rows = [
        SheetRow(
            [make_tile(images.pixels[row], side) for row in chosen[name]],
            captions[name],
            shorten(name),
            f"{counts[name]:,}" if counts else "low to high",
        )
        for name in names[:most]
    ]
    described = images.kind.describe([shorten(name) for name in images.target_names])
    rest = f"and {len(names) - most:,} more, not drawn" if len(names) > most else ""
    return lay_out(rows, f"{images.split}: {len(images):,} images, {described}", rest=rest)


def build_label_issues_sheet(found: Sequence[tuple[Images, LabelIssue]], title: str) -> Image.Image:
    """A sheet of the first label issues: each image with its given and likely label and score."""
    drawn = found[:MOST_LABEL_ISSUES]
    tiles = [
        make_tile(images.pixels[label_issue.row], SIDES_PX[0][1]) for images, label_issue in drawn
    ]
    captions = [
        (shorten(one.given), f"→ {shorten(one.likely)}", f"{one.score:.2f}") for _, one in drawn
    ]
    rest = f"and {len(found) - len(drawn):,} more, not drawn" if len(found) > len(drawn) else ""
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
        low, high = 100 * pair.interval.low, 100 * pair.interval.high
        tiles = [make_tile(images.pixels[row], side) for images, row in rows_of_images[:COLUMNS]]
        name = f"{shorten(pair.target)} → {shorten(str(pair.predicted))}"
        rows.append(
            SheetRow(
                tiles, (), name, f"{len(pair.rows):,} of {pair.images:,}: {low:.1f} to {high:.1f} %"
            )
        )
    rest = (
        f"and {len(pairs) - MOST_PAIRS:,} more pairs, not drawn" if len(pairs) > MOST_PAIRS else ""
    )
    return lay_out(rows, title, rest=rest)


def _choose_side(rows: int) -> int:
    return next(side for most, side in SIDES_PX if rows <= most)
