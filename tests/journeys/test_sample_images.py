"""lamina data --sample: images to begin with."""

from __future__ import annotations

from pathlib import Path

from support.commands import run_well


def test_sample_images_are_written_and_read_again(workplace: Path) -> None:
    written = run_well("data", "--sample", "photos")
    assert written.stdout == "photos: 161 images in 4 classes\n"
    assert written.stderr == "Next: lamina data photos\n"
    printed = run_well("data", "photos").stdout
    rows = [line.split("\t") for line in printed.splitlines()[1:5]]
    assert [name for name, *_ in rows] == ["arrow", "crescent", "drop", "heart"]
    assert [sum(map(int, counts)) for _, *counts in rows] == [40, 40, 40, 41]
