"""lamina data cache: list or remove the decoded copies of data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamina.cli.options import Flag, Json, OptionalSource
from lamina.cli.terminal import Terminal
from lamina.data.cache import cache_folder, format_size, list_cached
from lamina.data.load import full_source
from lamina.errors import DataError, suggest
from lamina.values import fields_to_json

HEADS = ("data set", "state", "last used", "images", "height×width", "size")
FAILED = "in use or protected"


@dataclass(frozen=True)
class Options:
    """List the decoded copies of data sets, with size and last use.

    Example: lamina data cache
    """

    data: OptionalSource = None
    clear: Flag = False
    """remove the copies of DATA, or of all data sets"""
    json: Json = False


def run(options: Options, terminal: Terminal) -> int:
    """Run the command; returns 2 if a copy cannot be removed."""
    all_copies = list_cached()
    copies = all_copies
    if options.data is not None:
        sources = (options.data, full_source(options.data))
        copies = [copy for copy in all_copies if copy.source in sources]
        if not copies:
            hint = "It has none at all."
            if all_copies:
                hint = suggest(options.data, sorted({copy.source for copy in all_copies}))
            raise DataError(f"The cache has no decoded copy of {options.data}. {hint}")
    total_bytes = sum(copy.size_bytes for copy in all_copies)
    status = 0
    rows: list[tuple[str, ...]] = []
    values: list[dict[str, Any]] = []
    for copy in copies[::-1]:
        state = copy.state
        if options.clear and copy.remove():
            state = "removed"
            total_bytes -= copy.size_bytes
        elif options.clear:
            state = FAILED
            status = 2
        images, height, width, *_ = (*copy.shape, 0, 0, 0)
        size = format_size(copy.size_bytes)
        rows.append((copy.source, state, copy.last_used, f"{images:,}", f"{height}×{width}", size))
        values.append(fields_to_json(copy) | {"folder": str(copy.folder), "state": state})
    terminal.tabulate(HEADS, rows, texts=3)
    terminal.say(f"all copies: {format_size(total_bytes)} in {cache_folder()}")
    terminal.emit("cache", folder=str(cache_folder()), bytes=total_bytes, copies=values)
    return status
