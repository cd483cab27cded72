"""Rules for every source file: meaningful names, and no imports in a circle."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lamina

SOURCE = Path(lamina.__file__).parent
NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def name_module(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_module(file): file for file in sorted(SOURCE.rglob("*.py"))}


def find_imports(node: ast.AST) -> Iterator[str]:
    """The modules of lamina that ``node`` imports when it runs, not for type checkers alone."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (one.name for one in node.names if one.name in FILES)
    if isinstance(node, ast.ImportFrom) and node.module in FILES:
        for one in node.names:
            inner = f"{node.module}.{one.name}"
            yield inner if inner in FILES else node.module
    for child in ast.iter_child_nodes(node):
        yield from find_imports(child)


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.slow
def test_no_files_import_each_other_in_a_circle():
    imports = {
        name: set(find_imports(ast.parse(file.read_text("utf-8")))) - {name}
        for name, file in FILES.items()
    }
    assert imports["lamina.nets"] >= {"lamina.nets.linear", "lamina.nets.net"}
    assert " ← ".join(find_cycle(imports)) == ""


def test_no_two_modules_have_the_same_name():
    """A package may share its name with the command that is about it."""
    names = [file.stem for file in FILES.values() if file.stem != "__init__"]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_every_module_has_a_name_that_says_something():
    parts = {part.strip("_") for module in FILES for part in module.split(".")}
    assert parts & NAMES_THAT_SAY_NOTHING == set()
