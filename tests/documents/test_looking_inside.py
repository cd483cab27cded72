"""docs/howto/looking-inside.md shows the commands and images of its script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from support import forking

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "howto" / "looking-inside.md").read_text(encoding="utf-8")
EXPLAIN = (DOCS / "howto" / "explain.md").read_text(encoding="utf-8")
SHOWN_IMAGE = re.compile(r"!\[[^\]]+\]\(\.\./images/([^)/]+)\)")
SHOWN = SHOWN_IMAGE.findall(DOCUMENT + EXPLAIN)
START = f"""
import runpy

runpy.run_path({str(DOCS / "looking_inside.py")!r}, run_name="__main__")
"""
WHOLE_BYTES, IMAGE_BYTES = 800_000, 150_000


def test_each_image_is_shown_once_and_small():
    kept = {file.name: file.stat().st_size for file in (DOCS / "images").glob("*.png")}
    shown = [
        name
        for file in (*DOCS.glob("howto/*.md"), *DOCS.glob("explanation/*.md"))
        for name in SHOWN_IMAGE.findall(file.read_text(encoding="utf-8"))
    ]
    assert sorted(kept) == sorted(shown)
    assert max(kept.values()) < IMAGE_BYTES
    assert sum(kept.values()) < WHOLE_BYTES
    for name in kept:
        with Image.open(DOCS / "images" / name) as image:
            assert (
                min(image.convert("L").getpixel((0, 0)), image.convert("L").getpixel((3, 3))) > 250
            )


@pytest.mark.nightly  # the script trains many nets, and figures are made by hand
def test_the_script_makes_the_images_by_the_shown_commands(tmp_path):
    done = forking.run("--trial", "--output", tmp_path, code=START)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(SHOWN)
    shown, shown_elsewhere = (
        [_without_sizes(line) for line in re.findall(r"^ {4}(lamina .*)$", page, re.MULTILINE)]
        for page in (DOCUMENT, EXPLAIN)
    )
    ran = [
        _without_sizes(line) for line in re.findall(r"^\$ (lamina .*)$", done.stdout, re.MULTILINE)
    ]
    assert shown == [line for line in ran if not line.startswith("lamina explain")]
    assert set(ran) - set(shown) <= set(shown_elsewhere)


@pytest.mark.nightly  # figures are made by hand
def test_the_script_writes_the_data_sets_of_the_document(tmp_path):
    assert "    python docs/looking_inside.py --write-data .\n" in DOCUMENT
    done = forking.run("--trial", "--write-data", ".", code=START, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "few").rglob("*.png")]) == 40
    assert len([*(tmp_path / "faulty").rglob("*.png")]) == 45


def _without_sizes(command: str) -> str:
    """A command without its data, epochs and image, which are others in a trial."""
    return re.sub(r"--data \S+|--epochs \d+|few/\S+\.png| --top \d+", "", command)
