"""The HTML of a page that stands alone: text that is never markup, tables, figures, and the style of all of it.

The page has no script, and its Content-Security-Policy allows nothing but its own style and the pictures inside it.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import Literal, NewType

from lamina.text import escape, shorten

Markup = NewType("Markup", str)
"""HTML that is complete and safe, as only the functions of this file make it."""

SHADES = 10
"""Number of shades of a table's cells, besides none."""
MOST_WIDE = 10
"""Tables of more columns of shaded cells are set in small print on paper."""
LONGEST_NAME = 40

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --faint: #5c636a; --ground: #fff; --line: #d9dce0; --raised: #f4f6f8;
  --link: #005a9c; --shade: 0, 114, 178; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9eb; --faint: #a3a9b0; --ground: #16181b; --line: #3a3f45; --raised: #212429; --link: #7fbdf2; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1rem 4rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.faint { color: var(--faint); }
.headline { font-size: 1.15rem; }
.warning { border-left: .25rem solid #d55e00; padding-left: .75rem; }
.wide { overflow: auto; margin: .75rem 0; }
.tall { max-height: 35rem; }
.tall thead { position: sticky; top: 0; background: var(--ground); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; }
th.text, td.text { text-align: left; }
td.text { white-space: pre-wrap; min-width: 8.5rem; overflow-wrap: anywhere; }
.confusion th, .confusion td { padding: .3rem; min-width: 2rem; text-align: center; vertical-align: middle;
  border: 2px solid var(--ground); }
.confusion th { font-weight: normal; white-space: normal; overflow-wrap: anywhere; line-height: 1.2; }
.confusion th:first-child { min-width: 6rem; max-width: 12rem; text-align: right; position: sticky; left: -1px;
  z-index: 1; background: var(--ground); }
.confusion thead th { vertical-align: bottom; }
.confusion thead span { display: inline-block; white-space: nowrap; writing-mode: vertical-rl;
  transform: rotate(180deg); }
.dense th, .dense td { padding: .15rem; min-width: 1.7rem; border-width: 1px; }
.confusion a { display: block; color: inherit; }
.chart { display: block; width: 100%; min-width: 44rem; height: auto; background: #fff; border-radius: .4rem; }
.narrow { min-width: 0; max-width: 34rem; }
.sheet { display: block; max-width: max(100%, 48rem); height: auto; background: #fff; border-radius: .4rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem; margin: .75rem 0; }
.pictures figure { margin: 0; width: 6.5rem; font-size: .75rem; line-height: 1.3; }
.pictures img { display: block; box-sizing: content-box; width: 6rem; height: 6rem; object-fit: contain;
  background: var(--raised); border: 1px solid var(--line); image-rendering: pixelated; }
.smooth .pictures img { image-rendering: auto; }
.cell { display: none; padding: .25rem 1rem 1rem; background: var(--raised); border-radius: .4rem; }
.cell:target { display: block; }
pre { padding: .75rem; overflow-x: auto; background: var(--raised); border-radius: .4rem; white-space: pre-wrap; }
@media (max-width: 30rem) { th, td { padding: .25rem .35rem; } }
@page { margin: 15mm; }
@media print {
  :root { --ink: #000; --faint: #444; --ground: #fff; --line: #bbb; --raised: #f4f6f8; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav, .screen { display: none; }
  a { text-decoration: none; }
  h2, h3, h2 + p { break-after: avoid; }
  .pictures { display: block; }
  .pictures figure { display: inline-block; vertical-align: top; margin: 0 .5rem .5rem 0; }
  p, figure, tr, .chart { break-inside: avoid; }
  .wide { overflow: visible; max-height: none; }
  .tall thead { position: static; }
  .confusion { table-layout: fixed; width: 100%; font-size: 8pt; }
  .confusion:not(:has(th:nth-child(9))) { width: auto; }
  .confusion td { white-space: normal; overflow-wrap: anywhere; }
  .confusion th:first-child { width: 7rem; }
  .dense { font-size: 6pt; }
  .dense:has(th:nth-child(22)) { font-size: 5pt; }
  .dense th, .dense td { padding: 1px 0; }
  .dense th:first-child { width: 4rem; }
  .chart { min-width: 0; width: auto; max-height: 15cm; }
  .chart, .sheet { max-width: 100%; }
}
""" + "".join(
    f".shade-{step} {{ background: rgba(var(--shade), {0.07 * step:.2f}); }}\n" for step in range(1, SHADES + 1)
)


def show(text: str) -> Markup:
    """Text as it is, whatever it holds.

    >>> show("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    return Markup(html.escape(escape(text)))


def join(parts: Iterable[Markup]) -> Markup:
    """Several parts, one after the other."""
    return Markup("".join(parts))


def wrap(tag: str, *parts: Markup, kind: str = "", name: str = "") -> Markup:
    """An element around some parts; ``kind`` is its class in the style, ``name`` what links lead to."""
    attributes = (f' class="{kind}"' if kind else "") + (f' id="{name}"' if name else "")
    return Markup(f"<{tag}{attributes}>{join(parts)}</{tag}>")


def paragraph(text: str, kind: str = "") -> Markup:
    """A paragraph of text."""
    return wrap("p", show(text), kind=kind)


def link(text: str, name: str, description: str = "") -> Markup:
    """A link to an element of the page; ``description`` is what is read aloud."""
    spoken = f' aria-label="{show(description)}"' if description else ""
    return Markup(f'<a href="#{name}"{spoken}>{show(text)}</a>')


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str | Markup]], texts: int = 1, links: Iterable[int] = ()
) -> Markup:
    """A table that scrolls where it is too wide.

    Args:
        heads: of the columns; may be left empty.
        rows: their cells; where there are many, the table scrolls.
        texts: how many of the first columns hold text; the others hold numbers.
        links: the columns whose cells are markup already.
    """
    ready = set(links)

    def cell(tag: str, place: int, content: Markup) -> Markup:
        return wrap(tag, content, kind="text" if place < texts else "")

    head = wrap("tr", *(cell("th", place, show(text)) for place, text in enumerate(heads)))
    body = join(
        wrap(
            "tr",
            *(
                cell("td", place, Markup(content) if place in ready else show(content))
                for place, content in enumerate(row)
            ),
        )
        for row in rows
    )
    return _scroll(wrap("table", *([wrap("thead", head)] if heads else []), wrap("tbody", body)), "wide tall")


def matrix(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[Markup, float]]]], corner: str) -> Markup:
    """A table of shaded cells; each has its content and a fraction that its shade grows with."""

    def cell(content: Markup, fraction: float) -> Markup:
        # The square root makes rare mistakes visible.
        step = round(SHADES * min(1.0, fraction) ** 0.5)
        return wrap("td", content, kind=f"shade-{max(1, step)}" if fraction else "faint")

    def head(name: str) -> Markup:
        return show(shorten(name, LONGEST_NAME))

    top = wrap("tr", wrap("th", show(corner)), *(wrap("th", wrap("span", head(name))) for name in heads))
    body = join(
        wrap("tr", wrap("th", head(name)), *(cell(content, fraction) for content, fraction in cells))
        for name, cells in rows
    )
    kind = "confusion dense" if len(heads) > MOST_WIDE else "confusion"
    return _scroll(wrap("table", wrap("thead", top), wrap("tbody", body), kind=kind))


def _scroll(content: Markup, kind: str = "wide") -> Markup:
    # The keyboard can only scroll what can have the focus.
    return Markup(f'<div class="{kind}" tabindex="0">{content}</div>')


def picture(encoded: bytes, description: str, kind: str = "") -> Markup:
    """A picture inside the page, PNG or JPEG; ``description`` is for those who do not see it."""
    media = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
    data = base64.b64encode(encoded).decode()
    style = f' class="{kind}"' if kind else ""
    return Markup(f'<img{style} src="data:{media};base64,{data}" alt="{show(description)}">')


def chart(encoded: bytes, description: str, kind: Literal["chart", "chart narrow", "sheet"] = "chart") -> Markup:
    """A drawing as wide as the page, or ``narrow``, or a ``sheet`` in its own size; it scrolls where it has no room."""
    return _scroll(picture(encoded, description, kind))


def document(title: str, *parts: Markup) -> str:
    """The whole page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{show(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n"
        "</html>\n"
    )
