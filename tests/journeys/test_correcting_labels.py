"""Label issues are found and corrected; with injected errors, accuracy on clean images rises."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lamina import load_run
from support.commands import events, run_lamina, run_well
from support.images import write_images


def draw_bands(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a band at the top, in the middle or at the bottom, and which of them it is."""
    targets = np.arange(count) % 3
    pixels = random.normal(128, 90, (count, 12, 12, 3))
    for row, target in enumerate(targets):
        pixels[row, 4 * target : 4 * target + 4] += 50
    return pixels.clip(0, 255).astype(np.uint8), targets


def test_accuracy_rises_when_listed_labels_are_corrected(workplace):
    """40 % of 200 training images have a wrong label."""
    random = np.random.default_rng(0)
    (x, y), (clean_x, clean_y) = draw_bands(random, 200), draw_bands(random, 300)
    true = {f"train/{row:05d}": str(target) for row, target in enumerate(y)}
    wrong = random.choice(200, 80, replace=False)
    y[wrong] = (y[wrong] + random.integers(1, 3, 80)) % 3
    np.savez("bands.npz", x_train=x, y_train=y, x_test=clean_x, y_test=clean_y)

    options = ("--no-pretrained", "--output", "issues.csv", "issues.png")
    listed = run_well("data", "labels", "bands.npz", *options)
    advice = "Write the correct label of an image into the column correct, or exclude"
    assert advice in listed.stderr
    with Path("issues.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    assert np.mean([row["given"] != true[row["image"]] for row in rows]) > 0.5
    assert "nets trained on other images: " in rows[0]["reason"]
    correct = [row for row in rows if row["likely"] == true[row["image"]]]
    for row in correct:
        # as a person would who looks at the images; the others stay empty
        row["correct"] = row["likely"]
    with Path("corrected.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = ("train", "mlp", "--data", "bands.npz", "--epochs", "20", "--name")
    run_well(*words, "before")
    trained = run_well(*words, "after", "--labels-from", "corrected.csv")
    counts = f"{len(correct)} labels corrected, 0 images excluded, 0 entries without a change"
    assert f"corrections: {counts}, 0 not found" in trained.stderr
    outputs = [load_run(f"runs/{name}").outputs["test"] for name in ("before", "after")]
    before, after = (of_run.logits.argmax(axis=1) == of_run.targets for of_run in outputs)
    better, worse = int((after & ~before).sum()), int((before & ~after).sum())
    assert better - worse > 0.05 * len(before) + 1.96 * np.sqrt(better + worse + 1)


def test_a_run_contains_its_corrections_and_groups(workplace):
    write_images(workplace / "squares", 30)
    Path("corrected.csv").write_text(
        "image,correct\nbright/3.png,dark\nbright/4.png,exclude\nbright/5.png,exclude\n"
    )
    Path("groups.csv").write_text("image,group\nbright/0.png,a\nbright/1.png,a\n")
    words = ("--labels-from", "corrected.csv")
    train = ("train", "mlp", "--data", "squares", "--device", "cpu", "--name")
    run_well(*train, "squares", *words, "--group-from", "groups.csv", "--epochs", "2")
    (event,) = events(run_lamina("data", "squares", *words, "--json").stdout)
    counts = [event[name] for name in ("corrected", "excluded", "unchanged", "not_found")]
    assert counts == [1, 2, 0, []]
    Path("corrected.csv").write_text("image,correct\nbright/7.png,dark\n")
    Path("groups.csv").unlink()
    (workplace / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace / "elsewhere")
        again = run_well("evaluate", workplace / "runs" / "squares")
    assert "has changed" not in again.stderr
    for command in ("reproduce", "resume"):
        run_well(command, "runs/squares")
    run_well(*train, "plain", "--epochs", "1")
    shown = run_lamina("runs", "--diff", "runs/squares", "runs/plain").stdout
    assert "bright/3.png" in shown
    other = write_images(workplace / "others", 5)
    # the corrections do not apply
    run_well("evaluate", "runs/squares", "--data", other)
