"""The Python of the how-to pages runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = [
    "load-your-own-format",
    "train-on-a-folder",
    "use-a-module",
    "write-a-layer",
    "write-a-net",
]
"""Tests in other folders run the Python of ``export``, ``extend`` and ``tuning``."""
WITH_TESTED_CALLS = ["ablate", "comparing", "explain", "resume"]


def run_python(page: str, folder: Path) -> None:
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        code = block.replace("seconds=20", "seconds=5")
        file = folder / f"block_{number}.py"  # studies read the code of functions
        file.write_text(code, encoding="utf-8")
        exec(compile(code, str(file), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(page, tmp_path)


@pytest.mark.nightly  # other tests call the same functions, with similar arguments
@pytest.mark.parametrize("page", WITH_TESTED_CALLS)
def test_the_python_of_a_page_with_tested_calls_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(page, tmp_path)
