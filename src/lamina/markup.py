"""HTML for pages and notebooks, without scripts and external files.

Escaped text, tables, images and the notebook style.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from lamina.text import escape, shorten

SHADES = 10  # levels of shading in a table, besides none
MOST_WIDE = 10  # shaded tables with more columns are printed in a smaller font on paper
LONGEST_NAME = 40
MOST_ROWS = 20  # of a table in a notebook
LETTER_PX = 6.8  # mean width of a letter below a box
CHART_PX = (220, 84)  # width and height of the lines in a line chart
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]  # column heads and rows


class Markup(str):
    """Complete, safe HTML. Only this module's functions make it; they escape any other text."""

    __slots__ = ()


def show(content: str) -> Markup:
    """Escape text, and pass :class:`Markup` through unchanged."""
    return content if isinstance(content, Markup) else Markup(html.escape(escape(content)))


def join(parts: Iterable[str]) -> Markup:
    return Markup("".join(map(show, parts)))


def wrap(tag: str, *parts: str, kind: str = "", name: str = "") -> Markup:
    """An element around ``parts``; ``kind`` is its CSS class, ``name`` its id for links."""
    attributes = ""
    if kind:
        attributes += f' class="{kind}"'
    if name:
        attributes += f' id="{name}"'
    return Markup(f"<{tag}{attributes}>{join(parts)}</{tag}>")


def shape(tag: str, *parts: str, **attributes: object) -> Markup:
    """An element of a drawing, with its attributes, such as ``stroke_width``."""
    written = []
    for name, value in attributes.items():
        written.append(f' {name.replace("_", "-")}="{show(str(value))}"')
    return Markup(f"<{tag}{''.join(written)}>{join(parts)}</{tag}>")


def link(text: str, name: str, description: str = "") -> Markup:
    """A link to an element of the page; ``description`` is for screen readers."""
    spoken = f' aria-label="{show(description)}"' if description else ""
    return Markup(f'<a href="#{name}"{spoken}>{show(text)}</a>')


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> Markup:
    """A scrollable table; the first ``texts`` columns hold text, all others numbers."""

    def line(tag: str, cells: Sequence[str]) -> Markup:
        elements: list[Markup] = []
        for place, cell in enumerate(cells):
            kind = "text" if place < texts else ""
            # For screen readers, an empty heading is not a heading.
            elements.append(wrap(tag if cell else "td", cell, kind=kind))
        return wrap("tr", *elements)

    parts = [wrap("tbody", *(line("td", row) for row in rows))]
    if heads:
        parts.insert(0, wrap("thead", line("th", heads)))
    return _scroll(wrap("table", *parts), "wide tall")


def matrix(
    heads: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[str, float]]]], corner: str
) -> Markup:
    """A table of cells with their content and shade (0 to 1), such as a confusion matrix."""

    def cell(content: str, fraction: float) -> Markup:
        # The square root makes rare mistakes visible.
        step = round(SHADES * min(1.0, fraction) ** 0.5)
        return wrap("td", content, kind=f"shade-{max(1, step)}" if fraction else "faint")

    top = (
        wrap("th", corner),
        *(wrap("th", wrap("span", shorten(name, LONGEST_NAME))) for name in heads),
    )
    body = (
        wrap(
            "tr",
            wrap("th", shorten(name, LONGEST_NAME)),
            *(cell(content, fraction) for content, fraction in cells),
        )
        for name, cells in rows
    )
    kind = "confusion dense" if len(heads) > MOST_WIDE else "confusion"
    return _scroll(wrap("table", wrap("thead", wrap("tr", *top)), wrap("tbody", *body), kind=kind))


def _scroll(content: Markup, kind: str = "wide") -> Markup:
    # Only an element that can have the focus scrolls by keyboard.
    return Markup(f'<div class="{kind}" tabindex="0">{content}</div>')


def image(encoded: bytes, description: str, kind: str = "") -> Markup:
    """An image embedded in the page, PNG or JPEG; ``description`` is its alternative text."""
    media = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
    data = base64.b64encode(encoded).decode()
    style = f' class="{kind}"' if kind else ""
    return Markup(f'<img{style} src="data:{media};base64,{data}" alt="{show(description)}">')


def chart(encoded: bytes, description: str, kind: str = "chart") -> Markup:
    """A ``chart`` (page width), a ``chart narrow``, or a ``sheet`` (original size, scrolls)."""
    return _scroll(image(encoded, description, kind))


def line_chart(
    title: str, lines: Mapping[str, Mapping[int, float]], ends: tuple[str, str], axis: str
) -> Markup:
    """A drawing of values by whole numbers, such as epochs, which ``axis`` names.

    Has a line for each name. ``ends`` are the texts of the lowest and the highest value.
    """
    width, height = CHART_PX
    values = [value for line in lines.values() for value in line.values()]
    places = [place for line in lines.values() for place in line]
    low, high = min(values), max(values)
    first, last = min(places), max(places)
    left = 8 + LETTER_PX * max(map(len, ends))
    parts = [
        f'<path class="axes" d="M{left:.0f} 22v{height}h{width}"/>',
        f'<text x="{left:.0f}" y="12" class="start">{show(title)}</text>',
        f'<text x="{left - 5:.0f}" y="{22 + height}" class="end">{show(ends[0])}</text>',
        f'<text x="{left - 5:.0f}" y="30" class="end">{show(ends[1])}</text>',
        f'<text x="{left:.0f}" y="{36 + height}" class="start">{first}</text>',
        f'<text x="{left + width:.0f}" y="{36 + height}" class="end">{show(axis)} {last}</text>',
    ]
    legend = left + width
    for number, (name, line) in reversed(list(enumerate(lines.items()))):
        points = [
            f"{left + width * (place - first) / max(1, last - first):.1f}"
            f",{22 + height * (1 - (value - low) / ((high - low) or 1)):.1f}"
            for place, value in line.items()
        ]
        parts.append(f'<polyline class="line-{number}" points="{" ".join(points)}"/>')
        parts.append(f'<text x="{legend:.0f}" y="12" class="end">{show(name)}</text>')
        legend -= LETTER_PX * len(name) + 4
        parts.append(f'<path class="line-{number}" d="M{legend - 16:.0f} 8h14"/>')
        legend -= 24
    spoken = "; ".join(
        f"{name}: {line[min(line)]:.3g} to {line[max(line)]:.3g}" for name, line in lines.items()
    )
    return Markup(
        f'<svg class="chart" role="img" aria-label="{show(f"{title} by {axis}: {spoken}")}"'
        f' width="{left + width + 16:.0f}" height="{height + 42}">{"".join(parts)}</svg>'
    )


def list_shades() -> str:
    return "".join(
        f".shade-{step} {{ background: rgba(var(--shade), {0.07 * step:.2f}); }}\n"
        for step in range(1, SHADES + 1)
    )


@cache
def _read_style() -> str:
    return files("lamina").joinpath("notebook.css").read_text("utf-8") + list_shades()


def card(title: str, *parts: str) -> str:
    """The notebook view of a value, in the light or dark colors of the page."""
    return wrap(
        "div",
        Markup(f"<style>{_read_style()}</style>"),
        wrap("p", wrap("b", title)),
        *parts,
        kind="lamina",
    )


def note(text: str) -> Markup:
    return wrap("p", text, kind="faint")


def short_table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Markup:
    parts = [table(heads, rows[:MOST_ROWS], texts)]
    if len(rows) > MOST_ROWS:
        parts.append(note(f"and {len(rows) - MOST_ROWS:,} more"))
    return join(parts)
