"""Pages of the reference that are written from the code, into ``docs/api`` before Sphinx reads."""

from __future__ import annotations

import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sphinx.util.inspect
import sphinx.util.typing

from tools.commands import write_commands
from tools.python import (
    find_public,
    prepare_docstring,
    read_plain_types,
    shorten_signature,
)
from tools.source_links import write_if_changed
from tools.tables import list_layers, list_recipes

FOLDER = "api"


def setup(app: Any) -> None:
    for module in (sphinx.util.inspect, sphinx.util.typing):
        module.typing = SimpleNamespace(**{**vars(typing), "get_type_hints": read_plain_types})
    app.connect("builder-inited", write_pages, priority=100)  # before autosummary
    app.connect("missing-reference", find_public)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # before napoleon


def write_pages(app: Any) -> None:
    folder = Path(app.srcdir) / FOLDER
    write_commands(folder / "commands")
    pages = {
        "layers.md": list_layers(),
        "recipes.md": list_recipes(),
    }
    for name, lines in pages.items():
        write_if_changed(folder / name, "\n".join(lines) + "\n")
