"""lamina data labels finds injected wrong labels with nets that it trains, and changes nothing."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import Images, find_label_issues
from support.commands import events, run_well
from support.images import write_images


def digest_files(folder: Path) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark squares; each split has one in the wrong folder and a mirrored copy."""
    folder = tmp_path_factory.mktemp("mislabelled")
    for split, count, seed in (("train", 60, 1), ("test", 10, 2)):
        write_images(folder / split, count, seed=seed)
        (folder / split / "bright" / "3.png").rename(folder / split / "dark" / "wrong.png")
    with Image.open(folder / "train" / "dark" / "7.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test" / "dark" / "copy.png")
    return folder


def test_wrong_labels_are_found_by_nets_trained_for_it(mislabelled, tmp_path):
    before = digest_files(mislabelled)
    sheet = tmp_path / "label-issues.png"
    told = run_well("data", "labels", mislabelled, "--no-pretrained", "--json", "--output", sheet)
    (event,) = events(told.stdout)
    assert event.keys() == {"event", "label_issues", "agreement"}
    assert event["event"] == "labels"
    # How many are listed follows from probabilities, which differ a little between processors and
    # with kernels; the estimate for a single error rounds to 0 or 1.
    first = {
        (value["image"], value["given"], value["likely"]) for value in event["label_issues"][:2]
    }
    assert first <= {(f"{split}/dark/wrong.png", "dark", "bright") for split in ("train", "test")}
    scores = [value["score"] for value in event["label_issues"]]
    assert scores == sorted(scores, reverse=True)
    assert event["agreement"].keys() == {"train", "val", "test"}
    assert event["agreement"]["train"] > 0.9
    assert "warning" not in told.stderr
    are_in_test = any(value["image"].startswith("test/") for value in event["label_issues"])
    assert ("Do not remove test images" in told.stderr) == are_in_test
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"
    assert digest_files(mislabelled) == before


def test_large_images_are_not_copied_to_be_compared(tmp_path, image_set):
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 2
    np.savez(tmp_path / "large.npz", **arrays)
    run_well("data", tmp_path / "large.npz")  # into the cache
    run_well("data", "duplicates", image_set)  # loads all modules
    tracemalloc.start()
    run_well("data", "duplicates", tmp_path / "large.npz")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 0.75 * sum(array.nbytes for array in arrays.values())


def test_a_weak_net_warns_and_a_class_with_one_image_is_no_obstacle(tmp_path):
    random = np.random.default_rng(0)
    alike = np.repeat(random.integers(0, 256, (1, 12, 12, 3), dtype=np.uint8), 30, axis=0)
    noise = random.integers(0, 256, (31, 12, 12, 3), dtype=np.uint8)
    pixels = np.concatenate([noise, alike])
    targets = np.arange(61) % 2
    targets[30] = 2
    arrays = {"x_train": pixels, "y_train": targets, "x_test": noise[:10], "y_test": targets[:10]}
    np.savez(tmp_path / "noise.npz", **arrays)
    words = ("data", "labels", tmp_path / "noise.npz", "--no-pretrained", "--top", "1")
    told = run_well(*words, "--device", "cpu")
    assert "device: cpu (as requested)" in told.stderr.splitlines()
    assert "warning: 30 training images are near-duplicates of each other, too many" in told.stderr
    assert "labels agree with nets trained on other images" in told.stderr
    assert "A weak model flags correct labels" in told.stderr
    first = told.stdout.splitlines()[0]
    assert first.startswith("train: ")
    assert "labels are worth checking" in first


def test_nets_judge_images_in_python():
    random = np.random.default_rng(0)
    targets = np.arange(40) % 2
    pixels = random.integers(0, 120, (40, 12, 12, 3), dtype=np.uint8) + 90 * targets.astype(
        np.uint8
    ).reshape(40, 1, 1, 1)
    targets[6] = 1
    images = Images.from_arrays(pixels, targets)
    found = find_label_issues(images, pretrained=False, device="cpu")
    assert found.judge == "nets trained on other images"
    assert found.splits["train"].labels == 40
