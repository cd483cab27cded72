"""How Sphinx reads signatures and docstrings, and links types to their public names."""

from __future__ import annotations

import dataclasses
import re
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

from lamina.nets.layers import LAYERS
from lamina.values import read_texts

PAGE = Path(__file__).parents[1] / "reference" / "python.rst"
"""It lists the public names."""


def read_plain_types(*arguments: Any, include_extras: bool = True, **named: Any) -> dict[str, Any]:
    """The types of a signature without their ``Annotated`` ranges, which have no readable form."""
    return typing.get_type_hints(*arguments, **named)


def shorten_signature(
    app: Any, what: str, name: str, item: Any, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """Leave out the arguments of a class whose fields follow, each with type, default and text."""
    if what == "class" and dataclasses.is_dataclass(item) and read_texts(item):
        return "(...)", ""
    return None


def public_names() -> dict[str, str]:
    """The documented path of each object, by the path where it is defined."""
    names = {}
    listed = re.findall(r"^   (lamina\.\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for path in (*listed, *(f"lamina.nets.{layer}" for layer in LAYERS)):
        package, _, last = path.rpartition(".")
        value = getattr(import_module(package), last)
        module = getattr(value, "__module__", "")
        qualified = getattr(value, "__qualname__", last)
        names[f"{module}.{qualified}"] = path
    return names


def find_public(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a type to the page of its public name."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    names = public_names()
    by_last = {path.rpartition(".")[2]: path for path in names.values()}
    head, _, member = target.removeprefix("~").rpartition(".")
    candidates = [names.get(target), by_last.get(target)]
    if head:
        owner = names.get(head) or by_last.get(head)
        candidates.append(owner and f"{owner}.{member}")
    domain = env.get_domain("py")
    for candidate in filter(None, candidates):
        if candidate in domain.objects:
            entry = domain.objects[candidate]
            from sphinx.util.nodes import make_refnode

            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, candidate
            )
    return None


def prepare_docstring(
    app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Change a docstring before napoleon reads it."""
    if what in ("attribute", "property"):
        # Napoleon takes what precedes a colon in the first line as the type.
        lines[:0] = ["..", ""]
    if what == "class" and "Attributes:" in lines and read_texts(item):
        del lines[lines.index("Attributes:") :]  # the fields follow, each with its text
    for place, line in enumerate(lines):
        if line.startswith(">>>"):
            lines[place:place] = [".. rubric:: Example", ""]
            break
