"""``Shown``: how every result is printed, shown in a notebook, and given as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lamina.errors import escape
from lamina.markup import Markup, Table, card, join, note, short_table, wrap
from lamina.text import format_table
from lamina.values import fields_to_json


class Shown(ABC):
    """A result that is shown as a headline, lines, the first rows of a table, and remarks."""

    texts: ClassVar[int] = 1  # columns of the table with text
    printed_rows: ClassVar[int] = 20

    @abstractmethod
    def headline(self) -> str:
        """The result in one line."""

    @abstractmethod
    def table(self) -> Table:
        """The column heads and the rows."""

    def lines(self) -> Sequence[str]:
        """Sentences above the table."""
        return ()

    def remarks(self) -> Sequence[str]:
        """Sentences below the table."""
        return ()

    def figures(self) -> Sequence[Markup]:
        """Drawings above the table, in a notebook."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return fields_to_json(self)

    def __str__(self) -> str:
        heads, rows = self.table()
        lines = [escape(self.headline()), *map(escape, self.lines())]
        if rows:
            lines.append(format_table(heads, rows, self.texts, self.printed_rows))
        return "\n".join([*lines, *map(escape, self.remarks())])

    def _repr_html_(self) -> str:
        heads, rows = self.table()
        lines = [wrap("p", line) for line in self.lines()]
        table = short_table(heads, rows, self.texts) if rows else join([])
        return card(self.headline(), *lines, *self.figures(), table, *map(note, self.remarks()))
