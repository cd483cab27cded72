"""Sheets of images: samples of each class, label issues, and similar images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from PIL import Image

from lamina.data import Images
from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import SheetRow, break_rows, lay_out
from lamina.insight.confident_learning import LabelIssues
from lamina.insight.neighbors import SimilarImages
from lamina.targets import REGRESSION
from lamina.text import shorten

SIDES_PX = {12: 128, 30: 96, 200: 64}  # of an image, on sheets with up to this many rows
COLUMNS = 8
MOST_ROWS = 200
MOST_LABEL_ISSUES = 80
SIMILAR_PX = 96


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


def build_label_issues_sheet(labels: LabelIssues, title: str) -> Image.Image:
    """A sheet of the first label issues: each image with its given and likely label and score."""
    tiles = []
    captions = []
    for issue in labels.issues[:MOST_LABEL_ISSUES]:
        pixels = labels.images[issue.split].pixels[issue.row]
        tiles.append(make_tile(pixels, _choose_side(1)))
        captions.append((shorten(issue.given), f"→ {shorten(issue.likely)}", f"{issue.score:.2f}"))
    rest = _count_rest(len(labels.issues) - len(tiles))
    return lay_out(break_rows(tiles, captions, COLUMNS), title, rest=rest)


def build_similar_sheet(
    results: Sequence[SimilarImages], title: str, rest: str = ""
) -> Image.Image:
    """A sheet with a row for each image: the image, and the images that are similar to it."""
    rows = []
    for similar in results:
        tiles = [make_tile(similar.pixels, SIMILAR_PX)]
        captions: list[tuple[str, ...]] = [("", "")]
        for neighbor in similar.neighbors:
            tiles.append(make_tile(similar.searched.pixels[neighbor.row], SIMILAR_PX))
            captions.append((shorten(neighbor.target), f"{neighbor.similarity:.2f}"))
        rows.append(SheetRow(tiles, captions, shorten(PurePath(similar.image).name)))
    return lay_out(rows, title, rest=rest)


def _count_rest(count: int) -> str:
    return f"and {count:,} more, not drawn" if count > 0 else ""


def _choose_side(rows: int) -> int:
    return next(side for most, side in SIDES_PX.items() if rows <= most)
