"""lamina explain: a sheet, arrays and sentences for each image."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, Images
from lamina.nets import Conv2d, GlobalAvgPool, Net, Output, ReLU
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.commands import events, run_lamina, run_well, train_once
from support.runs import begin_run
from support.timm_weights import save_random

METHODS = ["occlusion", "gradients", "grad-cam"]


@pytest.fixture(scope="module")
def run_on_squares(image_set):
    net = "Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()"
    return train_once(net, image_set, "--epochs", "2")


def test_each_image_gets_a_prediction_a_sheet_and_arrays(run_on_squares, workplace, image_set):
    image = image_set / "test/dark/0.png"
    done = run_well("explain", run_on_squares, image)
    file = run_on_squares / "explanations/0-explained.png"
    first, *lines = done.stdout.splitlines()
    predicted = (
        run_lamina("predict", run_on_squares, image, "--top", "1")
        .stdout.splitlines()[1]
        .split("\t")[1]
    )
    assert first == f"{image}: {predicted}; {file} shows the evidence for {predicted.split()[0]}"
    assert [line.split(":")[0].strip() for line in lines] == METHODS
    assert all(
        ": covering the image in the map's order changes the probability from" in line
        for line in lines
    )
    with Image.open(file) as sheet:
        assert sheet.width > 500
    with np.load(file.with_suffix(".npz")) as arrays:
        assert {name: arrays[name].shape for name in arrays} == dict.fromkeys(METHODS, (12, 12))


def test_json_has_an_object_for_each_method_and_problem(run_on_squares, workplace, image_set):
    image = image_set / "test/bright/1.png"
    (workplace / "text.png").write_text("no image")
    words = (
        "explain",
        run_on_squares,
        workplace / "text.png",
        "none*.png",
        image,
        "--target",
        "bright",
        "--json",
    )
    done = run_lamina(*words, "--output", workplace / "out")
    assert done.returncode == 2
    missing, unreadable, *printed = events(done.stdout)
    assert missing == {
        "event": "problem",
        "image": "none*.png",
        "reason": "no image matches this pattern",
    }
    assert unreadable == {
        "event": "problem",
        "image": str(workplace / "text.png"),
        "reason": "not an image",
    }
    assert [event["method"] for event in printed] == METHODS
    for event in printed:
        assert list(event) == [
            "event",
            "image",
            "predicted",
            "target",
            "method",
            "file",
            "before",
            "by_map",
            "by_random_map",
            "is_against",
            "is_number",
        ]
        assert event["event"] == "explanation"
        assert event["image"] == str(image)
        assert event["file"] == str(workplace / "out/1-explained.png")
        assert event["target"] == "bright"
        assert 0 <= event["by_map"] <= 1
    folder = workplace / "none"
    nothing = run_lamina(
        "explain", run_on_squares, "nosuch.png", workplace / "text.png", "--output", folder
    )
    assert nothing.returncode == 2
    assert not folder.exists()
    only = run_lamina(*words, "--method", "gradients", "--output", workplace / "out")
    assert [event["method"] for event in events(only.stdout)[2:]] == ["gradients"]


def test_an_explanation_of_another_image_is_kept(run_on_squares, workplace, image_set):
    options = ("--method", "gradients", "--output", "out", "--json")
    files = []
    for name in ("test/dark/0.png", "train/bright/0.png"):
        (event,) = events(run_well("explain", run_on_squares, image_set / name, *options).stdout)
        files.append(event["file"])
    assert files == ["out/0-explained.png", "out/0-explained-2.png"]


def test_a_net_without_places_is_explained_without_grad_cam(workplace, image_set):
    run = train_once("mlp", image_set, "--epochs", "4", "--device", "cpu")
    done = run_well("explain", run, image_set / "test/dark/0.png", "--json")
    assert [event["method"] for event in events(done.stdout)] == METHODS[:2]
    assert (
        "grad-cam: skipped, because no layer of this net has an output with height and width"
        in done.stderr
    )
    done = run_lamina("explain", run, image_set / "test/dark/0.png", "--method", "grad-cam")
    assert (
        done.stderr.splitlines()[-1]
        == "lamina: No layer of this net has an output with height and width, which Grad-CAM"
        " needs. "
        "Use gradients or occlusion instead."
    )


OTHER = {
    "multi-label": (np.arange(24).reshape(12, 2) % 3 == 0, ("wet", "warm"), "warm"),
    "regression": (
        np.linspace(0, 1, 24, dtype=np.float32).reshape(12, 2),
        ("angle", "size"),
        "size",
    ),
}


@pytest.mark.parametrize(("kind", "channels"), [("multi-label", 1), ("regression", 3)])
def test_other_targets_and_grey_images_are_explained_too(workplace, kind, channels):
    targets, names, target = OTHER[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 10, channels), np.uint8)
    images = Images(pixels, targets, names, tuple(map(str, range(12))), "train")
    net = Net(Conv2d(2, 3), ReLU(), GlobalAvgPool(), Output())
    training = Training(net, images, Recipe(epochs=1, batch_size=4))
    for _ in training:
        pass
    dataset = Dataset("pets", "abc", images)
    recipe = Recipe(device="cpu")
    run = begin_run(net, dataset, recipe, net_name="tiny", runs_dir=workplace)
    run.folder.save_model(training.model)
    Image.fromarray(pixels[0].squeeze()).save("one.png")
    for words, explained in ((("--target", target), target), ((), None)):
        done = run_well("explain", run.path, "one.png", "--json", *words)
        assert [event["method"] for event in events(done.stdout)] == METHODS
        assert explained in (None, *(event["target"] for event in events(done.stdout)))


def test_nets_of_timms_are_explained(workplace, image_set):
    file = save_random("test_resnet", workplace / "learned.safetensors")
    words = ("--weights", file, "--size", "32", "--epochs", "1")
    run = train_once("timm:test_resnet", image_set, *words)
    done = run_well("explain", run, image_set / "test/dark/0.png", "--json")
    assert [event["method"] for event in events(done.stdout)] == METHODS


def test_long_names_do_not_end_explain(accurate_run, workplace, image_set):
    image = image_set / "test/dark/0.png"
    names = [f"{'é' * 115}{letter}.png" for letter in "ab"]
    for name in names:
        shutil.copy(image, name)
    words = (*names, "--method", "occlusion", "--json")
    done = run_lamina("explain", accurate_run, *words)
    assert [event["event"] for event in events(done.stdout)].count("explanation") == 2
