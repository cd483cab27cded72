"""How the results of analyses are printed, and shown in notebooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lamina.errors import escape
from lamina.markup import Markup, Table, card, note, short_table
from lamina.text import format_table
from lamina.values import fields_to_json

PRINTED_ROWS = 20


class ShownResult(ABC):
    """A result that is shown as a headline, the first rows of its table, and remarks."""

    texts: ClassVar[int] = 1  # columns of the table with text

    @abstractmethod
    def headline(self) -> str:
        """The result in one line."""

    @abstractmethod
    def table(self) -> Table:
        """The column heads and the rows."""

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
        lines = [escape(self.headline())]
        if rows:
            lines.append(format_table(heads, rows, self.texts, PRINTED_ROWS))
        return "\n".join([*lines, *map(escape, self.remarks())])

    def _repr_html_(self) -> str:
        heads, rows = self.table()
        table = [short_table(heads, rows, self.texts)] if rows else []
        return card(self.headline(), *self.figures(), *table, *map(note, self.remarks()))
