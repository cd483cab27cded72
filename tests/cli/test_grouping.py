"""Groups on the command line: near-duplicates become groups, and no group is in two splits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from support.commands import run_lamina


def test_a_file_without_groups_is_not_recommended(workplace):
    random = np.random.default_rng(0)
    for place in range(12):
        file = workplace / "set" / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    done = run_lamina("data", "duplicates", "set", "--groups", "groups.csv")
    assert "groups.csv: 0 images in 0 groups\n" in done.stdout, done.stderr
    again = run_lamina("data", "--json", "duplicates", "set", "--groups", "groups.csv")
    assert again.returncode == 2
    assert "groups.csv exists, and may contain your groups." in again.stderr


def test_groups_are_saved_as_a_csv_file():
    done = run_lamina("data", "duplicates", "shapes", "--groups", "groups.txt")
    assert done.returncode == 2
    assert "it must end in .csv. Use --groups groups.csv." in done.stderr
