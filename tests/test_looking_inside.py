"""docs/looking-inside.md shows the images that its script makes, all of them and no others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = (DOCS / "looking-inside.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", DOCUMENT)
WHOLE_BYTES, IMAGE_BYTES = 800_000, 150_000


def test_the_images_of_the_document_are_all_there_are_and_small():
    kept = {file.name: file.stat().st_size for file in (DOCS / "images").iterdir()}
    assert sorted(kept) == sorted(SHOWN)
    assert max(kept.values()) < IMAGE_BYTES
    assert sum(kept.values()) < WHOLE_BYTES
    for name in kept:
        with Image.open(DOCS / "images" / name) as image:
            assert min(image.convert("L").getpixel((0, 0)), image.convert("L").getpixel((3, 3))) > 250


@pytest.mark.slow
def test_the_script_makes_each_image_by_the_commands_that_the_document_shows(tmp_path):
    done = subprocess.run(
        [sys.executable, DOCS / "looking_inside.py", "--trial", "--output", tmp_path],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(SHOWN)
    walk = DOCUMENT[DOCUMENT.index("## A walk") : DOCUMENT.index("## What it learned")]
    shown = [_without_sizes(line) for line in re.findall(r"^ {4}(lamina .*)$", walk, re.MULTILINE)]
    ran = [_without_sizes(line) for line in re.findall(r"^\$ (lamina .*)$", done.stdout, re.MULTILINE)]
    assert shown == ran


def _without_sizes(command: str) -> str:
    """A command without what is smaller in a trial: its data, its epochs, and the image that happens to be there."""
    return re.sub(r"--data \S+|--epochs \d+|few/\S+\.png| --top \d+", "", command)
