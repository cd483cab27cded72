"""Text for the terminal: safe names, tables (plain text and rich), and progress bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.errors import escape as escape  # defined there because errors need it too

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, RenderableType
    from rich.progress import Progress, Task
    from rich.table import Table

LONGEST_NAME = 24
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the beginning of a cell that a spreadsheet may execute


def hide_password(text: str) -> str:
    """A URL, even after ``--storage=``, without password and query; other text unchanged.

    >>> hide_password("postgresql://me:secret@host/studies")
    'postgresql://me:***@host/studies'
    """
    if "://" not in text:
        return text
    # A password may contain any character, so it ends at the last @.
    hidden = re.sub("(://[^:]*):.*@", r"\1:***@", text, flags=re.DOTALL)
    # Without @, what follows the colon is a password, unless it is a port.
    if "@" not in hidden:
        hidden = re.sub(r"(://[^:/\[]+):(?!\d+([/?]|$)).*", r"\1:***", hidden, flags=re.DOTALL)
    return hidden.partition("?")[0]


def parse_seconds(text: str) -> float | None:
    """The seconds of a time such as ``60s``, ``5m`` or ``1h``; ``None`` for other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    if match is None:
        return None
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def order_naturally(name: str) -> list[tuple[int, str]]:
    """A sort key that puts Class 2 before Class 10.

    >>> sorted(["Class 10", "class 1", "Class 2"], key=order_naturally)
    ['class 1', 'Class 2', 'Class 10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def format_percent(fraction: float | None) -> str:
    """Format a fraction as a percentage with one decimal; ``None`` as a dash."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Escape a name, and shorten its middle, because names often differ only at the end."""
    name = escape(name)
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 3
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def guard(cell: str) -> str:
    """Guard a cell of a table file: a formula for spreadsheets gets a leading apostrophe."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguard(cell: str) -> str:
    """The text that was passed to :func:`guard`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def build_table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Table:
    """Build a rich table: ``texts`` columns of left-aligned text, then columns of numbers."""
    from rich.table import Table
    from rich.text import Text

    # Text is never parsed as markup: a class may be called "[red]" or ":cat:".
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        justify: JustifyMethod = "left" if place < texts else "right"
        table.add_column(Text(escape(head)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    return table


def format_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, most: int | None = None
) -> str:
    """The table of :func:`build_table`, or its first ``most`` rows, as plain text of any width."""
    from rich.console import Console

    # Without force_jupyter, rich would display an empty output in a notebook.
    console = Console(width=100_000, color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(build_table(heads, rows[:most], texts))
    lines = [line.rstrip() for line in captured.get().rstrip("\n").split("\n")]
    if most is not None and len(rows) > most:
        lines.append(f"and {len(rows) - most:,} more")
    return "\n".join(lines)


def make_bar(console: Console, *, is_shown: bool) -> Progress:
    """A progress bar, which disappears at the end."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    class IfCounted(ProgressColumn):
        """A column that is empty if the total is 0, which stands for work that is not counted."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self.column = column

        def render(self, task: Task) -> RenderableType:
            return self.column(task) if task.total else ""

    return Progress(
        TextColumn("{task.description}"),
        *map(IfCounted, (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not is_shown,
    )
