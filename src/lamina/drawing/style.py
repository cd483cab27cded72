"""The style of all figures, and functions to save them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter
from PIL import Image

from lamina.data.thumbnails import encode_png as encode_image
from lamina.files import write_atomically
from lamina.text import LONGEST_NAME, shorten

# Safe for color-blind readers (Okabe and Ito, Color universal design, 2008), without yellow, which
# is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#222222"
FAINT_INK = "#8a8a8a"
GRID = "#e6e6e6"
DOTS_PER_INCH = 150
# decorates functions that draw; matplotlib restores the user's style after each call
styled = matplotlib.rc_context(
    {
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


class Chart(Figure):
    """A figure that notebooks show although pyplot did not create it."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw with fonts that have all letters, if any, without changing ``rcParams``."""
        for axes in self.axes:
            axes.get_xticklabels()  # creates them
            axes.get_yticklabels()
        texts = self.findobj(Text)
        lines = [line for text in texts for line in text.get_text().splitlines()]
        families = _find_families("".join(lines))
        for text in texts:
            text.set_fontfamily(families)
        with matplotlib.rc_context({"font.family": families}):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return encode_png(self)


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure that needs no screen and is not registered with pyplot."""
    figure = Chart(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure | Image.Image, path: Path) -> None:
    """Write a figure or an image as a PNG file, atomically."""
    write_atomically(path, encode_png(figure))


def encode_png(figure: Figure | Image.Image) -> bytes:
    if not isinstance(figure, Figure):
        return encode_image(figure)
    encoded = io.BytesIO()
    figure.savefig(
        encoded, dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight", pad_inches=0.2
    )
    return encoded.getvalue()


def label(name: str, longest: int = LONGEST_NAME) -> str:
    """A shortened name for matplotlib: ``?`` for letters without a font, and ``$`` escaped."""
    shown = shorten(name, longest)
    missing = _find_missing(shown, _find_families(shown))
    return "".join("?" if letter in missing else letter for letter in shown).replace("$", r"\$")


def _find_families(text: str) -> list[str]:
    """The user's font families, and installed fonts for the letters they lack."""
    families: list[str] = list(matplotlib.rcParams["font.family"])
    missing = frozenset(map(ord, _find_missing(text, families)))
    while missing and (font := _find_font(missing)):
        families.append(font.name)
        missing -= _letters(font.fname)
    return families


def _find_missing(text: str, families: Sequence[str]) -> set[str]:
    """The letters of ``text`` that no font of these families has."""
    fonts = [findfont(FontProperties(family=[family])) for family in families]
    letters = frozenset[int]().union(*(_letters(font) for font in fonts))
    return {letter for letter in text if ord(letter) not in letters}


def font_file(text: str) -> str:
    """A font for images: matplotlib's own, or an installed font with more of the letters."""
    shipped = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
    letters = frozenset(map(ord, text)) - {10}
    if letters <= _letters(shipped):
        return shipped
    font = _find_font(letters)
    return shipped if font is None else font.fname


@cache
def _find_font(letters: frozenset[int]) -> FontEntry | None:
    """The first installed font with most of these letters; ``None`` if none has any."""
    # The font of last resort, which matplotlib ships, has a box for each letter of all scripts.
    best = None
    most = 0
    for font in fontManager.ttflist:
        if font.style != "normal" or "Last Resort" in font.name:
            continue
        count = len(letters & _letters(font.fname))
        if count > most:
            best = font
            most = count
    return best


@cache
def _letters(font_file: str) -> frozenset[int]:
    try:
        return frozenset(get_font(font_file).get_charmap())
    except (OSError, RuntimeError):  # it was removed, or FreeType cannot read it
        return frozenset()


def limit_fraction(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.0))


def percent_formatter() -> FuncFormatter:
    """Format fractions as percentages with as many digits as needed: ``77.5 %``, ``80 %``."""
    return FuncFormatter(lambda fraction, _: f"{100 * fraction:.6g} %")
