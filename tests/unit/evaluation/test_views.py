import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Recipe, evaluate, load_data
from lamina.evaluation.reports import Report
from lamina.evaluation.views import View, predict_views, views_of
from lamina.training.features import predict_logits
from lamina.training.model import build_model

SIX = views_of(Recipe(flip="alternating", translate_px=2))


class Linear(nn.Module):
    """Logits that depend on where things are, as large as ``certainty``."""

    def __init__(self, certainty=1.0):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        self.certainty = certainty

    def forward(self, images):
        return self.certainty * self.body(images)


@pytest.fixture(scope="module")
def images():
    test = load_data("shapes").test
    return test.take(range(50))


def model_of(certainty, images):
    torch.manual_seed(0)
    return build_model(Linear(certainty), images, Recipe())


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), [(1.0, False, 0)]),
        (Recipe(flip="random"), [(0.5, False, 0), (0.5, True, 0)]),
        (Recipe(translate_px=4), [(0.5, False, 0), (0.25, False, -1), (0.25, False, 1)]),
    ],
)
def test_views_are_those_that_the_training_taught(recipe, expected):
    assert [dataclasses.astuple(view) for view in views_of(recipe)] == expected


def test_the_weights_of_six_views_sum_to_one():
    assert len(SIX) == 6
    assert sum(view.weight for view in SIX) == 1.0


def test_uncertain_images_get_the_mean_of_all_views(images):
    model = model_of(0.1, images)
    logits, reviewed = predict_views(model, images.pixels, SIX)
    expected = np.zeros_like(logits)
    for sides in (images.pixels, images.pixels[:, :, ::-1]):
        padded = np.pad(sides, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        for shown, weight in (
            (sides, 0.25),
            (padded[:, 2:, 2:], 0.125),
            (padded[:, :32, :32], 0.125),
        ):
            expected += weight * predict_logits(model, np.ascontiguousarray(shown))
    assert reviewed == 50
    assert logits == pytest.approx(expected, abs=1e-6)


def test_sure_images_are_seen_once(images):
    model = model_of(1000.0, images)
    logits, reviewed = predict_views(model, images.pixels, SIX)
    once = predict_logits(model, images.pixels)
    likeliest = np.sort(torch.from_numpy(once).softmax(1).numpy())[:, ::-1]
    uncertain = likeliest[:, 0] - likeliest[:, 1] < 0.5
    assert reviewed == uncertain.sum() < 10
    assert np.array_equal(logits[~uncertain], once[~uncertain])


def test_other_tasks_average_everywhere():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    template = load_data("shapes").test
    numbers = dataclasses.replace(
        template,
        pixels=pixels,
        targets=np.arange(12, dtype=np.float32).reshape(6, 2),
        target_names=("width", "height"),
        names=tuple("abcdef"),
        original_sizes_px=None,
    )
    model = build_model(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), numbers, Recipe())
    views = (View(0.5), View(0.5, is_mirrored=True))
    logits, reviewed = predict_views(model, pixels, views)
    mirrored = predict_logits(model, np.ascontiguousarray(pixels[:, :, ::-1]))
    assert reviewed == 6
    assert logits == pytest.approx((predict_logits(model, pixels) + mirrored) / 2, abs=1e-6)


def test_a_report_has_the_views_and_survives_json(images):
    report = evaluate(model_of(0.1, images), images, SIX)
    assert (report.views, report.reviewed_images) == (6, 50)
    assert "50 images, 50 of them in 6 views)" in str(report)
    assert Report.from_json(report.to_json()) == report
    assert "views" not in str(evaluate(model_of(0.1, images), images))
