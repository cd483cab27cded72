"""HTML for pages and notebooks, without scripts and external files.

Escaped text, tables, images and the notebook style.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from markupsafe import Markup as Markup
from markupsafe import escape as escape_html

from lamina.text import escape, shorten

SHADES = 10  # levels of shading in a table, besides none
MOST_WIDE = 10  # shaded tables with more columns are printed in a smaller font on paper
LONGEST_NAME = 40
MOST_ROWS = 20  # of a table in a notebook
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]  # column heads and rows


def show(content: str) -> Markup:
    """Escape text, and pass ``Markup``, which is complete and safe HTML, through unchanged."""
    return content if isinstance(content, Markup) else escape_html(escape(content))


def join(parts: Iterable[str]) -> Markup:
    return Markup("").join(map(show, parts))


def wrap(tag: str, *parts: str, kind: str = "", name: str = "") -> Markup:
    """An element around ``parts``; ``kind`` is its CSS class, ``name`` its id for links."""
    return _build(tag, parts, {"class": kind or None, "id": name or None})


def shape(tag: str, *parts: str, **attributes: object) -> Markup:
    """An element of a drawing, with its attributes, such as ``stroke_width``."""
    return _build(tag, parts, {name.replace("_", "-"): value for name, value in attributes.items()})


def link(text: str, name: str, description: str = "") -> Markup:
    """A link to an element of the page; ``description`` is for screen readers."""
    return _build("a", [text], {"href": f"#{name}", "aria-label": description or None})


def _build(tag: str, parts: Iterable[str], attributes: Mapping[str, object]) -> Markup:
    """An element; attributes that are ``None`` are left out."""
    written = _write_attributes(attributes)
    return Markup("<{tag}{written}>{content}</{tag}>").format(
        tag=tag, written=written, content=join(parts)
    )


def _write_attributes(attributes: Mapping[str, object]) -> Markup:
    pair = Markup(' {}="{}"')
    return join(
        pair.format(name, show(str(value)))
        for name, value in attributes.items()
        if value is not None
    )


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
    return _build("div", [content], {"class": kind, "tabindex": 0})


def image(encoded: bytes, description: str, kind: str = "") -> Markup:
    """An image embedded in the page, PNG or JPEG; ``description`` is its alternative text."""
    media = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
    data = base64.b64encode(encoded).decode()
    source = f"data:{media};base64,{data}"
    attributes = {"class": kind or None, "src": source, "alt": description}
    return Markup("<img{}>").format(_write_attributes(attributes))


def chart(encoded: bytes, description: str, kind: str = "chart") -> Markup:
    """A ``chart`` (page width), a ``chart narrow``, or a ``sheet`` (original size, scrolls)."""
    return _scroll(image(encoded, description, kind))


def list_shades() -> str:
    return "".join(
        f".shade-{step} {{ background: rgba(var(--shade), {0.07 * step:.2f}); }}\n"
        for step in range(1, SHADES + 1)
    )


@cache
def _read_style() -> Markup:
    style = files("lamina").joinpath("notebook.css").read_text("utf-8")
    return Markup(style + list_shades())  # noqa: S704 (no text of a user)


def card(title: str, *parts: str) -> str:
    """The notebook view of a value, in the light or dark colors of the page."""
    return wrap(
        "div",
        wrap("style", _read_style()),
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
