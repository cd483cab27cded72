"""Near-duplicates become groups, which a run keeps together."""

from __future__ import annotations

import csv

import numpy as np
from PIL import Image

from support.commands import events, run_lamina, run_well


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


def test_bursts_are_offered_as_groups_and_then_kept_together(workplace):
    write_bursts(workplace / "set")
    done = run_lamina("data", "duplicates", "set", "--json")
    (found,) = [event for event in events(done.stdout) if event["event"] == "duplicates"]
    assert found["near_train"]["test"] == 24  # all of test
    text = run_lamina("data", "duplicates", "set", "--groups", "groups.csv").stdout
    assert "24 of the 24 images of test have near-duplicates in train" in text
    assert "groups.csv: 120 images in 24 groups; train with --group-from groups.csv" in text
    rows = list(csv.DictReader((workplace / "groups.csv").read_text().splitlines()))
    assert len({row["group"] for row in rows}) == 24
    done = run_lamina("data", "duplicates", "set", "--group-from", "groups.csv", "--json")
    (found,) = [event for event in events(done.stdout) if event["event"] == "duplicates"]
    assert found["near_train"] == {}


def test_a_run_with_groups_is_evaluated_from_another_folder(workplace, monkeypatch):
    write_bursts(workplace / "set")
    run_lamina("data", "duplicates", "set", "--groups", "groups.csv")
    train = (
        "train",
        "Flatten(), Output()",
        "--data",
        "set",
        "--epochs",
        "1",
        "--group-from",
        "groups.csv",
        "--name",
        "g",
    )
    run_well(*train)
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    done = run_lamina("evaluate", "../runs/g", "--json")
    assert (done.returncode, events(done.stdout)[-1]["images"]) == (0, 20), done.stderr
    write_bursts(workplace / "other")
    (workplace / "other" / "a" / "000.png").rename(workplace / "other" / "a" / "new.png")
    # the groups do not apply to it
    done = run_lamina("evaluate", "../runs/g", "--data", workplace / "other", "--json")
    assert (done.returncode, events(done.stdout)[-1]["images"]) == (0, 120), done.stderr
    done = run_lamina(
        "evaluate", "../runs/g", "--data", workplace / "other", "--group-from", "parent"
    )
    assert (done.returncode, "Unknown option --group-from" in done.stderr) == (2, True)


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
