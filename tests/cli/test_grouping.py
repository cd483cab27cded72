"""Groups on the command line: near-duplicates become groups, and no group is in two splits."""

from __future__ import annotations

import csv

import numpy as np
from PIL import Image

from support.commands import run_lamina, run_well


def write_bursts(folder) -> None:
    """Five noisy shots of each of 24 scenes, in two classes, with meaningless file names."""
    random = np.random.default_rng(0)
    for scene in range(24):
        coarse = random.integers(40, 216, (4, 4, 3), dtype=np.uint8)
        pixels = np.asarray(
            Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        ).astype(int)
        for shot in range(5):
            file = folder / "ab"[scene % 2] / f"{(scene * 5 + shot) * 37 % 120:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noisy = (pixels + random.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(file)


def test_groups_of_a_table_stay_among_near_duplicates(workplace):
    write_bursts(workplace / "set")
    names = sorted(
        file.relative_to(workplace / "set").as_posix()
        for file in (workplace / "set").glob("*/*.png")
    )
    with (workplace / "given.csv").open("w") as file:
        csv.writer(file).writerows(
            [("image", "group"), *((name, f"g{place // 10}") for place, name in enumerate(names))]
        )
    words = (
        "data",
        "duplicates",
        "set",
        "--val",
        "0",
        "--test",
        "0",
        "--group-from",
        "given.csv",
    )
    run_well(*words, "--groups", "both.csv")
    rows = list(csv.DictReader((workplace / "both.csv").read_text("utf-8-sig").splitlines()))
    found = {row["image"]: row["group"] for row in rows}
    assert found.keys() == {*names}
    for start in range(0, 120, 10):
        assert len({found[name] for name in names[start : start + 10]}) == 1


def test_a_file_without_groups_is_not_recommended(workplace):
    random = np.random.default_rng(0)
    for place in range(12):
        file = workplace / "set" / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    done = run_lamina("data", "duplicates", "set", "--groups", "groups.csv")
    assert "groups.csv: 0 images in 0 groups\n" in done.stdout, done.stderr


def test_groups_are_saved_as_a_csv_file():
    done = run_lamina("data", "duplicates", "shapes", "--groups", "groups.txt")
    assert done.returncode == 2
    assert "it must end in .csv. Use --groups groups.csv." in done.stderr
