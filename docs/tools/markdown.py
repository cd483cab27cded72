"""Markdown of texts and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tools.schemas import Schema, name_type


def table_of(schema: Schema) -> Iterator[str]:
    has_texts = any("description" in part for part in schema["properties"].values())
    heads = ("field", "type", "meaning") if has_texts else ("field", "type")
    yield row(heads)
    yield row("---" for _ in heads)
    for name, part in schema["properties"].items():
        optional = "" if name in schema.get("required", ()) else " (optional)"
        text = code_spans(part.get("description", ""))
        cells = (f"`{name}`", f"{name_type(part)}{optional}", text)
        yield row(cells[: len(heads)])


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def code_spans(text: str) -> str:
    """A docstring's text as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("*", "\\*")
