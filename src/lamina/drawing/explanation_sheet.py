"""A sheet with an image and its attribution maps, and how faithful each map is."""

from __future__ import annotations

import textwrap
from pathlib import PurePath

from PIL import Image

from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import SheetRow, lay_out
from lamina.evaluation.predictions import describe
from lamina.insight.explaining import Explanation
from lamina.text import shorten

TILE_PX = 320
LETTERS_A_LINE = 40
LONGEST_PREDICTION = 90  # letters of a prediction of several labels or numbers


def build_explanation_sheet(explanation: Explanation) -> Image.Image:
    """A sheet of the image as the model sees it, and of each method's map."""
    tiles = [make_tile(pixels, TILE_PX) for pixels in explanation.pictures().values()]
    captions: list[tuple[str, ...]] = [("image",)]
    for method, attribution in explanation.maps.items():
        # A no-break space keeps a number and its % on one line.
        text = str(attribution.faithfulness or "").replace(" %", "\N{NO-BREAK SPACE}%")
        captions.append((method, *textwrap.wrap(text, LETTERS_A_LINE)))
    name = shorten(PurePath(explanation.prediction.name).name)
    predicted = shorten(describe(explanation.prediction), LONGEST_PREDICTION)
    remark = f"Maps for {shorten(explanation.target)} (red: evidence for, blue: evidence against)"
    return lay_out([SheetRow(tiles, captions)], f"{name}: {predicted}", remark)
