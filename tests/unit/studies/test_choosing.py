import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Dataset, Images, Net, Recipe, load_data, zoo
from lamina.insight.similarity import estimate_seconds
from lamina.nets import parse_net
from lamina.runs.nets_by_name import NetChoice, find_sides
from lamina.studies.candidates import (
    choose_from_scratch,
    fit_candidate,
    propose,
)
from lamina.studies.experiment import Candidate, Deadline, Experiment, find_lack_of_time
from lamina.training.timing import Pace

SMALL, LARGE = (
    parse_net("Flatten(), Output()"),
    parse_net("Flatten(), Linear(512), ReLU(), Linear(512), Output()"),
)


def noise_dataset(
    side: int, count: int = 20, sizes: int | None = None, height: int | None = None
) -> Dataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, height or side, side, 3), np.uint8)
    images = Images.from_arrays(pixels, np.arange(count) % 2)
    if sizes is None:
        return Dataset.from_images(images, test=replace(images, pixels=255 - pixels))
    originals = np.full((count, 2), sizes, np.int32)
    images = Images(pixels, images.targets, images.target_names, images.names, "train", originals)
    return Dataset("photos", "abc", images, size_px=side)


@pytest.mark.parametrize(
    ("dataset", "sides"),
    [
        (noise_dataset(8), (16,)),
        (noise_dataset(32, height=8), (16,)),
        (noise_dataset(60, height=40), (40,)),
        (noise_dataset(240, height=180), (96, 128, 160)),
        (noise_dataset(32), (32,)),
        (noise_dataset(40), (32, 40)),
        (noise_dataset(80), (32, 48, 64, 80)),
        (noise_dataset(96), (96,)),
        (noise_dataset(200), (96, 128, 160, 192)),
        (noise_dataset(64, sizes=375), (96, 128, 160, 192, 224)),
        (noise_dataset(64, sizes=50), (32, 48, 50)),
    ],
    ids=str,
)
def test_no_side_is_larger_than_the_images_were(dataset, sides):
    assert find_sides(dataset) == sides


def test_enlarged_images_are_taken_at_the_size_that_holds_their_detail():
    images = load_data("shapes").train.take_evenly(30)
    pixels = images.pixels.repeat(3, axis=1).repeat(3, axis=2)
    blurred = (
        sum(
            np.roll(pixels, (down, right), (1, 2)).astype(int)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
        // 9
    )
    enlarged = Images.from_arrays(blurred.astype(np.uint8), images.targets % 2)
    assert find_sides(Dataset.from_images(enlarged)) == (32,)


@pytest.mark.parametrize(
    ("sides", "ladder"), [((32, 48, 64), zoo.LADDER), ((96, 128, 160), zoo.PHOTO_LADDER)]
)
def test_candidates_cost_more_and_more_and_what_is_given_stays(sides, ladder, monkeypatch):
    monkeypatch.setattr("lamina.studies.candidates.find_sides", lambda dataset: sides)
    candidates = propose(noise_dataset(96), {"lr": 0.5})
    costs = [one.make().multiply_adds(one.shape) for one in candidates]
    assert costs == sorted(costs)
    assert {one.experiment.net.name for one in candidates} == set(ladder)
    assert {one.side_px for one in candidates} == set(sides)
    assert all(one.recipe.lr == 0.5 for one in candidates)
    assert all(one.recipe.batch_size == 16 for one in candidates)  # fitted to 20 images


def candidate(
    name: str, net: Net, recipe: Recipe, dataset: Dataset | None = None, **others: object
) -> Candidate:
    """A net that lamina may choose, for images of 32 px."""
    experiment = Experiment(
        NetChoice(name, net, {"default": recipe}), recipe, dataset or load_data("shapes")
    )
    return Candidate(experiment, 32, **others)


def far(seconds: float) -> Deadline:
    return Deadline(time.perf_counter(), seconds)


def choose(seconds: float, *candidates: Candidate, given_epochs: bool = False):
    deadline = far(seconds)
    chosen, considered = choose_from_scratch(candidates, deadline, are_epochs_given=given_epochs)
    return chosen, chosen.recipe if given_epochs else chosen.spend(deadline).recipe, considered


def test_the_last_that_has_time_for_its_recipe_is_taken():
    small, large = (
        candidate("small", SMALL, Recipe(epochs=2)),
        candidate("large", LARGE, Recipe(epochs=3)),
    )
    chosen, recipe, considered = choose(100_000, small, large)
    assert chosen.experiment.net.net is LARGE
    assert recipe == Recipe(epochs=recipe.epochs)
    assert recipe.epochs > 1000  # they fill the time
    assert [(one.net_name, one.verdict) for one in considered] == [
        ("small", "fits"),
        ("large", "chosen"),
    ]
    assert 0 < considered[0].seconds < considered[1].seconds


def test_one_without_the_time_for_its_recipe_is_passed_over():
    small, large = (
        candidate("small", SMALL, Recipe(epochs=2)),
        candidate("large", LARGE, Recipe(epochs=10**5)),
    )
    chosen, _, considered = choose(1000, small, large)
    assert chosen.experiment.net.net is SMALL
    assert considered[0].verdict == "chosen"
    assert considered[1].verdict in ("too slow", "too slow (estimated)")


def test_the_first_is_taken_with_fewer_epochs_too_by_progressive_resizing():
    _, recipe, _ = choose(1000, candidate("small", SMALL, Recipe(epochs=10**5), can_resize=True))
    assert 2 <= recipe.epochs < 10**5
    assert recipe.start_size_fraction > 0


def test_progressive_resizing_respects_what_is_given(monkeypatch):
    monkeypatch.setattr("lamina.studies.candidates.find_sides", lambda dataset: (32, 48))
    given = {"start_size_fraction": 0.0}
    assert not any(one.can_resize for one in propose(noise_dataset(96), given))
    assert all(one.can_resize for one in propose(noise_dataset(96), {}))


def blank(train: int, val: int = 0, test: int = 0) -> Dataset:
    """So many images of a pixel each."""

    def images(count: int) -> Images | None:
        pixels = np.zeros((count, 1, 1, 1), np.uint8)
        return Images.from_arrays(pixels, np.arange(count) % 2, ("no", "yes")) if count else None

    return Dataset("blank", "abc", images(train), images(val), images(test))


def test_given_epochs_stay():
    small, large = (
        candidate("small", SMALL, Recipe(epochs=7)),
        candidate("large", LARGE, Recipe(epochs=10**5)),
    )
    assert choose(1000, small, large, given_epochs=True)[1] == small.recipe


def test_epochs_that_are_given_are_trained_however_little_time_is_left():
    """There is no limit then: the time only chooses the net."""
    small, large = (
        candidate("small", SMALL, Recipe(epochs=7)),
        candidate("large", LARGE, Recipe(epochs=7)),
    )
    chosen, recipe, considered = choose(-1.0, small, large, given_epochs=True)
    assert (chosen.experiment.net.name, recipe.epochs) == ("small", 7)
    assert [one.verdict for one in considered] == ["chosen"]


def test_too_short_a_time_says_how_much_more_would_do():
    chosen, recipe, considered = choose(0.5, candidate("small", SMALL, Recipe()))
    assert (chosen.experiment.net.name, recipe.epochs) == ("small", 1)
    assert [other.verdict for other in considered] == ["chosen"]
    message = " ".join(find_lack_of_time(chosen, far(0.5)))
    assert re.search(
        r"^One epoch of small takes .* Increase --time \(in Python, seconds\) by at least \d+ s\.$",
        message,
    )
    assert find_lack_of_time(chosen, far(1000.0)) == ("", "")


def test_runs_share_the_time_that_is_left():
    deadline = Deadline(time.perf_counter() - 20, 100, runs=4)
    assert deadline.seconds == 25
    assert 19 < deadline.seconds_left() <= 20


def test_settings_that_are_given_are_not_called_fitted():
    net, dataset = (
        NetChoice("mlp", zoo.load_net("mlp"), zoo.load_recipes("mlp")),
        load_data("shapes"),
    )
    assert "lr 0.001 → 0.00063" in fit_candidate(net, dataset, {}, 32).changes[1]
    given = fit_candidate(net, dataset, {"lr": 0.01, "epochs": 3}, 32)
    assert given.changes[1] == "batch_size 100 → 40"
    assert (given.recipe.lr, given.recipe.epochs, given.recipe.batch_size) == (0.01, 3, 40)


def test_the_time_after_the_last_epoch_includes_val_and_the_search_for_near_duplicates():
    pace = Pace(1e-3, 0.5)
    alone, tested, both = (
        candidate("net", SMALL, Recipe(), blank(1000, val, test), pace=pace).ending_seconds()
        for val, test in ((0, 0), (0, 10), (20, 10))
    )
    assert tested - alone == pytest.approx(
        1.1 * 10 * 0.5 + 2.2 * estimate_seconds(10, 1000, (1, 32, 32))
    )
    assert both - tested == pytest.approx(1.1 * 20 * 0.5)


@given(
    seconds=st.floats(10, 1000),
    images=st.integers(1, 10**5),
    test=st.integers(0, 10**4),
    epochs=st.integers(1, 100),
)
def test_a_training_that_fits_ends_in_time(seconds, images, test, epochs):
    one = candidate(
        "net", SMALL, Recipe(epochs=epochs), blank(images, 0, test), pace=Pace(1e-4, 1e-4, 0.5)
    )
    fitted = one.fit(far(seconds))
    whole = fitted.total_seconds() + one.ending_seconds()
    assert fitted.recipe.epochs == 1 or whole <= 0.97 * seconds
