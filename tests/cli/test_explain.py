"""lamina explain: a sheet, arrays and sentences for each image, and messages for wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, Images
from lamina.data.resizing import resize_image, seen_box
from lamina.drawing.attribution_sheet import _average_blocks
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
        assert {name: arrays[name].shape for name in arrays} == {
            "box_px": (4,),
            **dict.fromkeys(METHODS, (12, 12)),
        }
        assert arrays["box_px"].tolist() == [0, 0, 12, 12]


@pytest.mark.slow
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
            "correlations",
            "before",
            "by_map",
            "by_random_map",
            "by_center",
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


def test_images_of_one_name_get_a_sheet_each(run_on_squares, workplace, image_set):
    run_well(
        "explain",
        run_on_squares,
        image_set / "test/bright/2.png",
        image_set / "test/dark/2.png",
        "--method",
        "gradients",
        "--output",
        "out",
    )
    assert sorted(file.name for file in Path("out").iterdir()) == [
        f"2-explained{number}.{kind}" for number in ("-2", "") for kind in ("npz", "png")
    ]


def test_names_that_look_like_formulas_or_commands_are_harmless(
    run_on_squares, workplace, image_set
):
    name = "$x_\n\x1b[31m日$.png"
    Image.open(image_set / "test/dark/3.png").save(name)
    done = run_well("explain", run_on_squares, name, "--method", "gradients", "--output", "out")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 2


def test_large_maps_are_averaged_before_they_are_drawn():
    values = np.arange(130 * 200, dtype=np.float32).reshape(130, 200)
    drawn = _average_blocks(values)
    assert drawn.shape == (65, 100)
    assert drawn[1, 2] == values[2:4, 4:6].mean()
    uneven = _average_blocks(np.ones((129, 131), np.float32))
    assert uneven.shape == (65, 66)
    assert (uneven == 1).all()


@pytest.mark.parametrize(
    ("resize", "mark"), [("crop", (150, 50)), ("pad", (20, 50)), ("stretch", (280, 80))]
)
def test_the_box_is_where_the_net_sees(resize, mark):
    """A dot that the net sees lies where the box puts it."""
    image = Image.new("L", (300, 100))
    image.paste(255, (mark[0] - 10, mark[1] - 10, mark[0] + 10, mark[1] + 10))
    seen = np.asarray(resize_image(image, (40, 40), resize), np.float64)
    left, top, right, bottom = seen_box((300, 100), (40, 40), resize)
    down, across = (
        np.average(np.arange(40) + 0.5, weights=seen.sum(axis=axis)) / 40 for axis in (1, 0)
    )
    assert left + across * (right - left) == pytest.approx(mark[0], abs=4)
    assert top + down * (bottom - top) == pytest.approx(mark[1], abs=4)


def test_maps_of_images_of_another_size_have_its_coordinates(run_on_squares, workplace):
    Image.new("RGB", (90, 30), (250, 250, 250)).save("wide.png")
    run_well("explain", run_on_squares, "wide.png", "--method", "occlusion", "--output", "out")
    with np.load("out/wide-explained.npz") as arrays:
        assert arrays["box_px"].tolist() == [30, 0, 60, 30]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target", "brihgt"), "The model has no class 'brihgt'. Did you mean bright?"),
        (("--layer", "5"), "There is no layer 5; the net has layers 1 to 4."),
        (("--layer", "0"), "There is no layer 0; the net has layers 1 to 4."),
        (("--layer", "9x"), "The model has no module 'body.9x'. Did you mean body.3?"),
        (
            ("--layer", "3"),
            (
                "The output of layer 'body.2' has shape 4, but Grad-CAM needs channels, height and"
                " width. Use another layer."
            ),
        ),
        (
            ("--layer", "1", "--method", "occlusion"),
            "--layer is '1', but occlusion does not use a layer. Use --method grad-cam.",
        ),
        (
            ("--output", "file/in"),
            "Cannot write file/in: Not a directory. Use another --output.",
        ),
    ],
)
def test_what_cannot_be_explained_is_rejected_first(
    run_on_squares, workplace, image_set, words, message
):
    (workplace / "file").touch()
    done = run_lamina("explain", run_on_squares, image_set / "test/dark/0.png", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}"
    assert done.stdout == ""


def test_images_are_needed(run_on_squares):
    done = run_lamina("explain", run_on_squares)
    assert (done.returncode, done.stderr) == (
        2,
        "lamina: No images given. Add image files, folders or patterns after RUN.\n",
    )


def test_a_folder_that_cannot_be_written_is_reported(
    run_on_squares, workplace, image_set, monkeypatch
):
    monkeypatch.setattr("os.access", lambda *_: False)
    (workplace / "out").mkdir()
    done = run_lamina("explain", run_on_squares, image_set / "test/dark/0.png", "--output", "out")
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == "lamina: Cannot write in the folder out. Use another --output."
    )


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
        "Use integrated gradients or occlusion instead."
    )


OTHER = {
    "multi-label": (np.arange(24).reshape(12, 2) % 3 == 0, ("wet", "warm"), "warm"),
    "binary": (np.arange(12) % 2 == 0, ("is dark",), "is dark"),
    "regression": (
        np.linspace(0, 1, 24, dtype=np.float32).reshape(12, 2),
        ("angle", "size"),
        "size",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER)
@pytest.mark.parametrize("channels", [1, 3])
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


@pytest.mark.slow
def test_nets_of_timms_are_explained(workplace, image_set):
    file = save_random("test_resnet", workplace / "learned.safetensors")
    words = ("--weights", file, "--size", "32", "--epochs", "1")
    run = train_once("timm:test_resnet", image_set, *words)
    done = run_well("explain", run, image_set / "test/dark/0.png", "--json", "--layer", "layer2")
    assert [event["method"] for event in events(done.stdout)] == METHODS
