"""What Python shows of lamina's values: a line, however much they hold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lamina import Images, Predictor, Recipe, Training, evaluate, load_net
from lamina.evaluation.intervals import Interval
from lamina.evaluation.outputs import Outputs
from lamina.nets import Conv2d, Flatten, Net, Output
from lamina.runs.start import find_net
from lamina.studies.cross_validation import Folds
from lamina.targets import Score

MANY = 300
LONG = "x" * 40


@pytest.fixture(scope="module")
def training():
    pixels = np.zeros((MANY, 8, 8), np.uint8)
    images = Images.from_arrays(
        pixels, np.arange(MANY), [f"{LONG} {number}" for number in range(MANY)]
    )
    return Training(Net(Flatten(), Output()), images, Recipe(epochs=2)), images


def test_values_of_many_classes_have_a_short_repr(training):
    training, images = training
    model = training.model
    predictor = Predictor(model)
    report = evaluate(model, images)
    outputs = Outputs("test", np.zeros((MANY, MANY), np.float32), images.targets, images.names)
    shown = f"Model(single-label, {MANY} classes, images 1×8×8, 19,500 parameters)"
    assert list(map(repr, (model, predictor, model.task, training, outputs))) == [
        shown,
        f"Predictor(model={shown}, resize='crop')",
        f"Task(single-label, {MANY} classes)",
        f"Training({shown}, Recipe(epochs=2): 0 of 6 steps done, on cpu)",
        f"Outputs(test: logits ({MANY}, {MANY}), targets, names)",
    ]
    assert repr(find_net("cnn-s")) == "NetChoice(name='cnn-s', origin=None)"
    assert repr(report) == f"Report(train {report.score}, {MANY} images)"
    (prediction,) = predictor.predict(images.pixels[0])
    assert (
        repr(prediction) == f"Prediction('image 0': {prediction.predicted}"
        f" {100 * prediction.values[prediction.predicted]:.1f} %)"
    )
    shown = prediction._repr_html_()
    assert shown.count(f">{prediction.predicted}<") == 1
    assert "and 280 more" in shown


def test_a_net_is_shown_with_its_costs():
    shown = load_net("cnn")._repr_html_()
    assert "Net of 18 layers" in shown
    assert "591,914" in shown  # parameters for 3×32×32 and ten classes
    assert "<script" not in shown


def test_a_net_too_large_for_images_is_shown_by_its_layers():
    shown = Net(Conv2d(8, 64), Flatten(), Output())._repr_html_()
    assert "Conv2d(8, 64)" in shown
    assert "parameters" not in shown


def test_predictions_are_shown_with_their_images(training, tmp_path):
    training, images = training
    names = [tmp_path / "<i>.png", *images.pixels[:30]]
    found = Predictor(training.model).predict(names)
    shown = found._repr_html_()
    assert shown.count("<figure>") == len(found.tiles) == 24
    assert shown.count("<img ") == 23
    assert "could not be read: no such file" in shown
    assert "&lt;i&gt;.png" in shown
    assert "and 7 more" in shown


def test_folds_are_shown_as_a_table():
    reports = [SimpleNamespace(score=Score("accuracy", value), images=10) for value in (0.5, 0.7)]
    outputs = SimpleNamespace(names=["a"] * 20)
    run = SimpleNamespace(path="runs/<i>/final", report=None)
    folds = Folds(tuple(reports), outputs, Score("accuracy", 0.6), Interval(0.4, 0.8), run)
    shown = folds._repr_html_()
    assert "<b>out-of-fold accuracy 60.00 % (95 % interval 40.00 % to 80.00 %)</b>" in shown
    assert shown.count(">accuracy 50.00 %<") == shown.count(">accuracy 70.00 %<") == 1
    assert "runs/&lt;i&gt;/final" in shown
    assert str(folds).splitlines()[0] == folds.headline()
