"""docs/looking-inside.md shows its script's commands and images; docs show all their images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "looking-inside.md").read_text(encoding="utf-8")
SHOWN_IMAGE = re.compile(r"!\[[^\]]+\]\(images/([^)/]+)\)")
SHOWN = SHOWN_IMAGE.findall(DOCUMENT)
SCRIPT = [sys.executable, DOCS / "looking_inside.py", "--trial"]
WHOLE_BYTES, IMAGE_BYTES = 800_000, 150_000


def test_each_image_is_shown_once_and_small():
    kept = {file.name: file.stat().st_size for file in (DOCS / "images").glob("*.png")}
    shown = [
        name
        for file in DOCS.glob("*.md")
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


@pytest.mark.slow
def test_the_script_makes_each_image_by_the_commands_that_the_document_shows(tmp_path):
    done = subprocess.run(
        [*SCRIPT, "--output", tmp_path],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(SHOWN)
    shown = [
        _without_sizes(line) for line in re.findall(r"^ {4}(lamina .*)$", DOCUMENT, re.MULTILINE)
    ]
    ran = [
        _without_sizes(line) for line in re.findall(r"^\$ (lamina .*)$", done.stdout, re.MULTILINE)
    ]
    assert shown == ran


def test_the_script_writes_the_data_sets_of_the_document(tmp_path):
    assert "    python docs/looking_inside.py --write-data .\n" in DOCUMENT
    subprocess.run(
        [*SCRIPT, "--write-data", "."], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
    )
    assert len([*(tmp_path / "few").rglob("*.png")]) == 40
    assert len([*(tmp_path / "faulty").rglob("*.png")]) == 45


def _without_sizes(command: str) -> str:
    """A command without its data, epochs and image, which are others in a trial."""
    return re.sub(r"--data \S+|--epochs \d+|few/\S+\.png| --top \d+", "", command)
