"""Paths, bytes, images and arrays are decoded, resized and predicted alike."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lamina import Recipe
from lamina.data import Images
from lamina.data.decoding import decode_image
from lamina.data.image_inputs import find_images
from lamina.data.images import OTHER_FILE
from lamina.errors import DataError
from lamina.evaluation.predictions import make_prediction
from lamina.evaluation.predictor import Predictor
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, Net, Output, ReLU, Residual
from lamina.training.model import Model, build_model, eval_mode
from lamina.training.prediction import predict_logits
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel
from support.images import encode

SIDE = 6


def model_of(targets: np.ndarray, names: tuple[str, ...], channels: int = 3) -> Model:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(
        0, 256, (len(targets), SIDE, SIDE, channels), np.uint8
    )
    images = Images(pixels, targets, names, tuple(map(str, range(len(targets)))), "train")
    return build_model(Net(Flatten(), Output()), images, Recipe()).eval()


MODEL = model_of(np.array([0, 1, 2]), ("cat", "dog", "hen"))
IMAGE = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)


def expected_of(pixels: np.ndarray) -> np.ndarray:
    """The probabilities of an image of the model's size."""
    return torch.from_numpy(predict_logits(MODEL, np.stack([pixels]))).softmax(dim=1).numpy()[0]


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_a_path_bytes_an_image_and_an_array_are_predicted_alike(
    tmp_path: Path, resize: str
) -> None:
    (tmp_path / "a.png").write_bytes(encode(IMAGE))
    image_set = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        encode(IMAGE),
        Image.fromarray(IMAGE),
        IMAGE,
    ]
    predictor = Predictor(MODEL, resize)
    expected = expected_of(decode_image(encode(IMAGE), (SIDE, SIDE), "RGB", resize))
    # Some processors round the rows of a batch differently.
    np.testing.assert_allclose(
        predictor.probabilities(image_set), np.stack([expected] * 5), rtol=1e-6
    )
    named = predictor.predict(image_set)
    path = str(tmp_path / "a.png")
    assert [prediction.name for prediction in named] == [
        path,
        path,
        "image 2",
        "image 3",
        "image 4",
    ]
    for prediction in named:
        assert list(prediction.values) == ["cat", "dog", "hen"]
        assert list(prediction.values.values()) == pytest.approx(expected.tolist(), rel=1e-6)
        assert prediction.predicted == ("cat", "dog", "hen")[int(expected.argmax())]


def test_one_image_may_stand_alone_and_a_batch_is_an_array() -> None:
    predictor = Predictor(MODEL)
    batch = np.random.default_rng(2).integers(0, 256, (300, SIDE, SIDE, 3), np.uint8)
    expected = torch.from_numpy(predict_logits(MODEL, batch)).softmax(dim=1).numpy()
    np.testing.assert_allclose(predictor.probabilities(batch), expected, rtol=1e-5)
    for one in (batch[0], Image.fromarray(batch[0]), encode(batch[0])):
        np.testing.assert_array_equal(predictor.probabilities(one), [expected_of(batch[0])])
    assert predictor.probabilities([]).shape == (0, 3)
    assert predictor.probabilities(iter(batch[:2])).shape == (2, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_color_and_transparent_arrays_fit_all_models(channels: int) -> None:
    model = model_of(np.array([0, 1]), ("a", "b"), channels)
    alpha = np.dstack([IMAGE, np.full(IMAGE.shape[:2], 120, np.uint8)])
    for pixels in (IMAGE[..., 0], IMAGE[..., :1], IMAGE, alpha):
        squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        np.testing.assert_array_equal(
            Predictor(model).probabilities(pixels), Predictor(model).probabilities(encode(squeezed))
        )


def test_a_three_dimensional_array_is_read_as_by_from_arrays() -> None:
    grey = np.random.default_rng(3).integers(0, 256, (5, 9, 13), np.uint8)
    for channels in (1, 3):
        predictor = Predictor(model_of(np.array([0, 1]), ("a", "b"), channels))
        expected = predictor.probabilities(list(grey))
        assert len(expected) == 5
        for given in (grey, grey[..., None], torch.from_numpy(grey), list(torch.from_numpy(grey))):
            np.testing.assert_array_equal(predictor.probabilities(given), expected)
        np.testing.assert_array_equal(
            predictor.probabilities(torch.from_numpy(IMAGE)), predictor.probabilities(IMAGE)
        )
        assert len(predictor.predict(np.zeros((5, SIDE, SIDE), np.uint8))) == 5


def test_a_callers_image_is_turned_upright_and_not_changed() -> None:
    opened = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE).save(opened, "PNG", exif=exif)
    with Image.open(opened) as image:
        given = Predictor(MODEL).probabilities(image)
        assert image.size == (13, 9)
    np.testing.assert_array_equal(given, Predictor(MODEL).probabilities(opened.getvalue()))


EXPECTED = "expected uint8 pixels (H, W) or (H, W, C) with 1, 3 or 4 channels"


def test_a_bad_image_has_a_problem_and_the_rest_is_predicted(tmp_path: Path) -> None:
    image_set = [
        IMAGE,
        b"no image",
        tmp_path / "gone.png",
        IMAGE.astype(float),
        IMAGE[:0],
        np.zeros((4, 4, 2), np.uint8),
        encode(IMAGE)[:60],
        IMAGE,
    ]
    predictions = Predictor(MODEL).predict(image_set)
    assert [prediction.problem for prediction in predictions[:6]] == [
        None,
        "not an image",
        "no such file or directory",
        f"{EXPECTED}, got float64 of shape (9, 13, 3)",
        f"{EXPECTED}, got uint8 of shape (0, 13, 3)",
        f"{EXPECTED}, got uint8 of shape (4, 4, 2)",
    ]
    assert predictions[6].problem
    assert predictions[0].values == predictions[7].values
    assert (predictions[1].predicted, predictions[1].values) == (None, {})
    with pytest.raises(DataError, match=r"^image 1 could not be read: not an image\.$"):
        Predictor(MODEL).probabilities(image_set)


def test_an_unknown_way_to_resize_is_rejected() -> None:
    with pytest.raises(
        DataError, match=r"^resize is 'squash'; it must be one of crop, pad, stretch\.$"
    ):
        Predictor(MODEL, "squash")


def test_chunks_do_not_change_the_predictions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    image_set = [encode(generator.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(70)]
    image_set[5] = b"broken"
    whole = Predictor(MODEL).predict(image_set)
    monkeypatch.setattr("lamina.data.image_inputs.CHUNK_BYTES", 40 * 3 * SIDE * SIDE)
    parts = Predictor(MODEL).predict(image_set)
    assert [part.name for part in parts] == [f"image {place}" for place in range(70)]
    assert [part.problem for part in parts] == [prediction.problem for prediction in whole]
    for part, prediction in zip(parts, whole, strict=True):
        assert list(part.values.values()) == pytest.approx(
            list(prediction.values.values()), rel=1e-5
        )


def test_predict_returns_what_iter_predict_yields() -> None:
    taken = []

    def few():
        for shade in (0, 255):
            taken.append(shade)
            yield np.full((SIDE, SIDE, 3), shade, np.uint8)

    predictions = Predictor(MODEL).predict(few())
    assert taken == [0, 255]
    assert isinstance(predictions, list)
    assert predictions == list(Predictor(MODEL).iter_predict(few()))


def test_images_are_taken_only_as_they_are_needed() -> None:
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield IMAGE

    predictions = Predictor(MODEL).iter_predict(endless())
    next(predictions)
    predictions.close()
    assert len(taken) <= 512


def test_the_callers_warnings_stay_while_predictions_are_read() -> None:
    before = list(warnings.filters)
    predictions = Predictor(MODEL).iter_predict([encode(IMAGE)] * 300)
    for prediction in predictions:
        assert prediction.problem is None
    assert warnings.filters == before


def test_values_are_named_by_the_kind_of_target() -> None:
    single = make_prediction(SingleLabel(("cat", "dog"), shares=(0.5, 0.5)), "a", (0.25, 0.75))
    assert (single.predicted, single.values) == ("dog", {"cat": 0.25, "dog": 0.75})
    several = make_prediction(MultiLabel(("furry", "winged"), shares=(0.5, 0.5)), "a", (0.2, 0.1))
    assert (several.predicted, several.values) == ((), {"furry": 0.2, "winged": 0.1})
    no = make_prediction(Binary(("metal",), shares=(0.5,)), "a", (0.25,))
    assert (no.predicted, no.values) == ("no", {"no": 0.75, "yes": 0.25})
    number = make_prediction(
        Regression(("x", "y"), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0)), "a", (1.23456789, -5.0)
    )
    assert number.predicted == number.values == {"x": 1.234568, "y": -5.0}


def normed_model() -> Model:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    net = Net(
        Conv2d(4, 3),
        BatchNorm(),
        ReLU(),
        Residual(Conv2d(4, 1), ReLU()),
        Flatten(),
        Dropout(0.5),
        Output(),
    )
    model = build_model(net, Images.from_arrays(pixels, np.arange(40) % 3), Recipe())
    with torch.no_grad():
        # moves the running statistics from where they began
        model.train()(torch.from_numpy(pixels))
    return model


def softmax(model: Model, pixels: np.ndarray) -> np.ndarray:
    with eval_mode(model), torch.no_grad():
        return model(torch.from_numpy(pixels)).double().softmax(dim=1).numpy()


@pytest.mark.parametrize("count", [1, 300])
def test_predictions_follow_the_weights_and_change_no_mode(
    count: int,
) -> None:
    model, pixels = (
        normed_model(),
        np.random.default_rng(4).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
    )
    predictor, before = Predictor(model), pixels.copy()
    for change in (
        None,
        lambda: model.body[0].weight.mul_(2),
        lambda: model.body[1].running_mean.add_(0.5),
    ):
        first = softmax(model, pixels)
        if change is not None:
            with torch.no_grad():
                change()
            assert np.abs(softmax(model, pixels) - first).max() > 1e-3
        np.testing.assert_allclose(
            predictor.probabilities(pixels), softmax(model, pixels), rtol=1e-4, atol=1e-6
        )
    assert all(layer.training for layer in model.modules())
    np.testing.assert_array_equal(pixels, before)


def test_a_model_may_be_converted_after_the_first_prediction() -> None:
    model = normed_model()
    predictor = Predictor(model)
    expected = predictor.probabilities(IMAGE)
    model.double()
    np.testing.assert_allclose(predictor.probabilities(IMAGE), expected, rtol=1e-4)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_hook_sees_its_layer_also_after_the_first_prediction(index: int) -> None:
    model, seen = normed_model(), []
    predictor = Predictor(model)
    expected = predictor.probabilities(IMAGE)
    hook = model.body[index].register_forward_hook(lambda module, *_: seen.append(module))
    np.testing.assert_allclose(predictor.probabilities(IMAGE), expected, rtol=1e-4)
    hook.remove()
    predictor.probabilities(IMAGE)
    assert seen == [model.body[index]]


def test_thumbnails_show_the_pixels_that_were_predicted() -> None:
    pixels = np.full((30, SIDE, SIDE, 3), 200, np.uint8)
    predictions = Predictor(MODEL).predict(pixels)
    pixels[:] = 0
    assert [tile.getextrema() for tile in predictions.tiles] == [((200, 200),) * 3] * 24


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in folders, beside files that are none."""
    monkeypatch.chdir(tmp_path)
    for name in ("2.png", "1.PNG", "in/3.png", "in/deep/4.png", "[5].png", "=6.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"any")
    (tmp_path / "photos/in/notes.txt").write_text("no image")
    (tmp_path / "photos/.hidden.png").write_bytes(b"hidden")
    return tmp_path


def found(*inputs: str) -> list[str]:
    images, problems = find_images(inputs)
    assert {problem.reason for problem in problems} <= {OTHER_FILE}
    return [str(image) for image in images]


def test_a_folder_stands_for_its_images_by_path(photos):
    expected = ["1.PNG", "2.png", "=6.png", "[5].png", "in/3.png", "in/deep/4.png"]
    assert found("photos") == [f"photos/{name}" for name in expected]


def test_a_pattern_is_expanded_unless_a_file_has_its_name(photos):
    assert found("photos/*.png") == ["photos/2.png", "photos/=6.png", "photos/[5].png"]
    assert found("photos/in/**/*.png") == ["photos/in/3.png", "photos/in/deep/4.png"]
    assert found("photos/i*") == ["photos/in/3.png", "photos/in/deep/4.png"]
    assert found(f"{photos}/photos/in/?.png") == [f"{photos}/photos/in/3.png"]
    assert found("photos/[5].png") == ["photos/[5].png"]


def test_an_image_named_in_several_ways_is_listed_once(photos):
    assert found(
        "photos/in/3.png", "photos/in", f"{photos}/photos/in/3.png", "photos/../photos/in/*.png"
    ) == [
        "photos/in/3.png",
        "photos/in/deep/4.png",
    ]
