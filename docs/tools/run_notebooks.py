"""Run the notebooks of the chapters in a real kernel, and print how long each takes.

python docs/tools/run_notebooks.py docs/chapters [RESULTS]

Each notebook runs in an empty folder, as after its download. With ``RESULTS``, the notebooks with
their outputs are written to that folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

MOST_LINES = 60  # that a cell prints


def run_notebook(file: Path) -> Any:
    """The notebook with its outputs; nbclient's ``CellExecutionError`` if a cell fails."""
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, resources=resources).execute()
    return notebook


def list_problems(cells: Sequence[Any]) -> Iterator[str]:
    """What a reader would stumble over in the outputs of a notebook's cells of code."""
    if cells[0].outputs:
        yield "the first cell, which installs lamina in Colab, has an output"
    for place, cell in enumerate(cells, start=1):
        lines = "".join(output.get("text", "") for output in cell.outputs).count("\n")
        if lines > MOST_LINES:
            yield f"cell {place} prints {lines} lines"


def main() -> None:
    files = sorted(Path(sys.argv[1]).glob("*.ipynb"))
    problems = [] if files else ["there are no notebooks; run: make docs"]
    for file in files:
        start = time.perf_counter()
        notebook = run_notebook(file)
        print(f"{file.stem:<28}{time.perf_counter() - start:>6.1f} s", flush=True)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        problems += [f"{file.name}: {problem}" for problem in list_problems(cells)]
        if len(sys.argv) > 2:
            Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, Path(sys.argv[2]) / file.name)
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
