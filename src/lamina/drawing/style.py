"""The style of all figures, and functions to save them."""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
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
FONTS = (
    "DejaVu Sans",
    "STIXGeneral",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
"""For letters that a font lacks, the next installed one. The first two come with matplotlib; others
are usual on Linux, Windows and macOS."""
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
        """Draw with fonts for more scripts after the user's own, without changing ``rcParams``."""
        families = [*matplotlib.rcParams["font.family"], *find_fonts()]
        with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing")  # it is drawn as a box
            for text in self.findobj(Text):
                text.set_fontfamily(families)
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
    """A shortened name for matplotlib, with ``$`` escaped."""
    return shorten(name, longest).replace("$", r"\$")


@cache
def find_fonts() -> dict[str, str]:
    """The files of the ``FONTS`` that are installed, by their names."""
    installed = fontManager.get_font_names()
    return {name: findfont(name) for name in FONTS if name in installed}


def font_file(text: str) -> str:
    """The first of the fonts that have most of a text's letters, for images."""
    letters = set(map(ord, text))

    def count_letters(file: str) -> int:
        return len(letters & get_font(file).get_charmap().keys())

    return max(find_fonts().values(), key=count_letters)


def limit_fraction(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.0))


def percent_formatter() -> FuncFormatter:
    """Format fractions as percentages with as many digits as needed: ``77.5 %``, ``80 %``."""
    return FuncFormatter(lambda fraction, _: f"{100 * fraction:.6g} %")
