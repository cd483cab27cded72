"""The rules of the house, checked for every file: small files and functions, names that say something, no cycles."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import lamina

SOURCE = Path(lamina.__file__).parent
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def name_module(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_module(file): ast.parse(file.read_text("utf-8")) for file in sorted(SOURCE.rglob("*.py"))}


def find_imports(node: ast.AST) -> Iterator[str]:
    """The modules of lamina that run with ``node``, also inside functions, but not for type checkers alone."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (one.name for one in node.names if one.name in TREES)
    if isinstance(node, ast.ImportFrom) and node.module in TREES:
        for one in node.names:
            inner = f"{node.module}.{one.name}"
            yield inner if inner in TREES else node.module
    for child in ast.iter_child_nodes(node):
        yield from find_imports(child)


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without those of its docstring, which public names have whole."""
    first = function.body[0]
    documented = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - documented


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_files_import_each_other_in_a_circle():
    imports = {name: set(find_imports(tree)) - {name} for name, tree in TREES.items()}
    assert imports["lamina.nets"] >= {"lamina.nets.layers", "lamina.nets.net"}
    assert " ← ".join(find_cycle(imports)) == ""


def test_no_two_modules_have_the_same_name():
    """A package may share its name with the command that is about it."""
    names = [file.stem for file in SOURCE.rglob("*.py") if file.stem != "__init__"]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_no_file_is_long():
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert {str(file.relative_to(SOURCE)): lines for file, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_long():
    functions = {
        f"{module}, line {node.lineno}: {node.name}": count_lines(node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(functions) > 500
    assert {name: lines for name, lines in functions.items() if lines > MOST_FUNCTION_LINES} == {}


def test_every_module_has_a_name_that_says_something():
    parts = {part.strip("_") for module in TREES for part in module.split(".")}
    assert parts & NAMES_THAT_SAY_NOTHING == set()
