"""The examples in docstrings and in pages, as they are written."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import tempfile
from pathlib import Path

import pytest

from support.shapes import drawing_all_shapes

ROOT = Path(__file__).parents[2]
COUNTING_SHAPES = [
    "src/lamina/data/load.py",
    "src/lamina/studies/comparison.py",
    "src/lamina/studies/judging.py",
]
"""They show how many images the built-in shapes have."""


def find_examples(folder: str, pattern: str) -> list[str]:
    """The files below a folder that have an example, relative to the project."""
    files = sorted((ROOT / folder).rglob(pattern))
    return [
        str(file.relative_to(ROOT)) for file in files if ">>> " in file.read_text(encoding="utf-8")
    ]


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples leave their files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("file", find_examples("src", "*.py"))
def test_the_examples_of_a_module_run(file):
    name = ".".join(Path(file).relative_to("src").with_suffix("").parts)
    module = importlib.import_module(name.removesuffix(".__init__"))
    counts = file in COUNTING_SHAPES
    with drawing_all_shapes() if counts else contextlib.nullcontext():
        result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("file", ["README.md", *find_examples("docs", "*.md")])
def test_the_examples_of_a_page_run(file):
    result = doctest.testfile(str(ROOT / file), module_relative=False, encoding="utf-8")
    assert not result.failed
