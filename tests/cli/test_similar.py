"""lamina similar: the nearest training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from lamina.data import load_data
from lamina.runs.run import load_run
from lamina.training.hooks import watch
from support.commands import events, run_lamina, run_well, train_once
from support.images import write_images


@pytest.fixture(scope="module")
def run_on_squares(image_set):
    net = "Conv2d(4, 3), BatchNorm(), ReLU(), Flatten(), Linear(7), ReLU(), Output()"
    return train_once(net, image_set, "--epochs", "2")


def compute_features(run: Path, pixels: np.ndarray) -> np.ndarray:
    """The input of the last layer, seen by a hook on the model itself, which nothing folds."""
    model, found = load_run(run).load_model(), []
    last = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)][
        -1
    ]
    with watch(model, [last], lambda _, given, __: found.append(given)), torch.no_grad():
        model(torch.from_numpy(np.array(pixels)))
    return found[0].numpy()


def test_the_nearest_training_images_are_scikit_learns(run_on_squares, workplace, image_set):
    images = [image_set / "test/dark/0.png", image_set / "train/bright/7.png"]
    done = run_well(
        "similar", run_on_squares, *images, "--top", "3", "--json", "--output", "similar.png"
    )
    train = load_data(image_set).train
    pixels = np.stack([np.asarray(Image.open(image)) for image in images])
    reference = NearestNeighbors(n_neighbors=3, metric="cosine").fit(
        compute_features(run_on_squares, train.pixels)
    )
    distances, rows = reference.kneighbors(compute_features(run_on_squares, pixels))
    for event, image, own_distances, own_rows in zip(
        events(done.stdout), images, distances, rows, strict=True
    ):
        assert (event["event"], event["image"]) == ("similar", str(image))
        similarities = [value["similarity"] for value in event["similar"]]
        assert similarities == pytest.approx(1 - own_distances, abs=2e-3)
        assert similarities == sorted(similarities, reverse=True)
        for one, row in zip(event["similar"], own_rows, strict=True):
            assert (
                one["target"] == train.target_names[train.targets[train.names.index(one["image"])]]
            )
            # among many that are almost equal
            assert one["image"] == train.names[row] or one["similarity"] > 0.99
    assert events(done.stdout)[1]["similar"][0]["image"] == "train/bright/7.png"
    with Image.open("similar.png") as sheet:
        assert sheet.height > 2 * 96
        assert sheet.width > 4 * 96


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(run_on_squares, workplace, image_set):
    (workplace / "text.png").write_text("no image")
    done = run_lamina(
        "similar",
        run_on_squares,
        "text.png",
        "none*.png",
        image_set / "test/dark/1.png",
        "--top",
        "100",
    )
    assert done.returncode == 2
    assert (
        "lamina: text.png: not a readable image" in done.stderr
        or "lamina: text.png: " in done.stderr
    )
    assert "lamina: none*.png: no image matches this pattern\n" in done.stderr
    head, *lines = done.stdout.splitlines()
    assert head == "image\tsimilar image\ttarget\tsimilarity"
    assert len(lines) == len(load_data(image_set).train)  # all, as there are fewer than 100
    assert {line.split("\t")[0] for line in lines} == {str(image_set / "test/dark/1.png")}


def test_images_of_other_data_are_not_called_training_images(run_on_squares, workplace, image_set):
    write_images(workplace / "others", 20, seed=5)
    done = run_well(
        "similar", run_on_squares, image_set / "test/dark/1.png", "--data", "others", "--top", "1"
    )
    assert done.stdout.splitlines()[0] == "image\tsimilar image\ttarget\tsimilarity"
    assert "warning: others is not, or no longer, the data set that " in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "a.csv"], "--output is a.csv; it must end in .png. Use --output a.png."),
        (["--data", "gone"], "gone"),
    ],
)
def test_wrong_options_are_errors(words, message, run_on_squares, workplace, image_set):
    done = run_lamina("similar", run_on_squares, image_set / "test/dark/1.png", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
