"""The Python of the how-to pages runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
HOWTO = DOCS / "howto"
PAGES = [
    "load-your-own-format",
    "train-on-a-folder",
    "write-a-net",
]
"""Tests in other folders run the Python of ``export``, ``extend`` and ``tuning``."""
WITH_TESTED_CALLS = ["comparing", "explain", "resume"]


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


def test_each_image_is_shown_once_and_small():
    stored = {file.name: file.stat().st_size for file in (DOCS / "images").glob("*.png")}
    pages = [*DOCS.glob("howto/*.md"), *DOCS.glob("explanation/*.md")]
    shown = [
        name
        for page in pages
        for name in re.findall(
            r"!\[[^\]]+\]\(\.\./images/([^)/]+)\)", page.read_text(encoding="utf-8")
        )
    ]
    assert sorted(stored) == sorted(shown)
    assert max(stored.values()) < 150_000
    assert sum(stored.values()) < 800_000
    for name in stored:
        with Image.open(DOCS / "images" / name) as image:
            gray = image.convert("L")
        corners = gray.getpixel((0, 0)), gray.getpixel((3, 3))
        assert min(corners) > 250
