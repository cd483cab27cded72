from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Dataset, Images, Recipe, load_data, zoo
from lamina.errors import RecipeError
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.reports import Report
from lamina.nets import parse_net
from lamina.runs.choosing import (
    MOST_SHARE,
    Candidate,
    Clock,
    choose_from_scratch,
    find_sides,
    find_slowdown,
    fit_again,
    is_better,
    propose,
    spend,
    start_clock,
)
from lamina.training.task import task_of
from lamina.training.timing import Pace

SMALL, LARGE = parse_net("Flatten(), Output()"), parse_net("Flatten(), Linear(512), ReLU(), Linear(512), Output()")


def noise(side: int, count: int = 20, sizes: int | None = None, height: int | None = None) -> Dataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, height or side, side, 3), np.uint8)
    images = Images.from_arrays(pixels, np.arange(count) % 2)
    if sizes is None:
        return Dataset.from_images(images, test=images)
    originals = np.full((count, 2), sizes, np.int32)
    images = Images(pixels, images.targets, images.target_names, images.names, "train", originals)
    return Dataset("photos", "abc", images, size_px=side)


@pytest.mark.parametrize(
    ("dataset", "sides"),
    [
        (noise(8), (16,)),
        (noise(32, height=8), (16,)),
        (noise(60, height=40), (40,)),
        (noise(240, height=180), (96, 128, 160)),
        (noise(32), (32,)),
        (noise(40), (32, 40)),
        (noise(80), (32, 48, 64, 80)),
        (noise(96), (96,)),
        (noise(200), (96, 128, 160, 192)),
        (noise(64, sizes=375), (96, 128, 160, 192, 224)),
        (noise(64, sizes=50), (32, 48, 50)),
    ],
    ids=str,
)
def test_no_side_is_larger_than_the_pictures_were(dataset, sides):
    assert find_sides(dataset) == sides


def test_enlarged_pictures_are_taken_at_the_size_that_holds_their_detail():
    images = load_data("shapes").train.take_evenly(30)
    pixels = images.pixels.repeat(3, axis=1).repeat(3, axis=2)
    blurred = (
        sum(np.roll(pixels, (down, right), (1, 2)).astype(int) for down in (-1, 0, 1) for right in (-1, 0, 1)) // 9
    )
    enlarged = Images.from_arrays(blurred.astype(np.uint8), images.targets)
    assert find_sides(Dataset.from_images(enlarged)) == (32,)


@pytest.mark.parametrize(("sides", "ladder"), [((32, 48, 64), zoo.LADDER), ((96, 128, 160), zoo.PHOTO_LADDER)])
def test_candidates_cost_more_and_more_and_what_is_given_stays(sides, ladder):
    candidates = propose(noise(96), sides, {"lr": 0.5})
    costs = [one.net.with_outputs(2).multiply_adds((3, one.side_px, one.side_px)) for one in candidates]
    assert costs == sorted(costs)
    assert {one.net_name for one in candidates} == set(ladder)
    assert {one.side_px for one in candidates} == set(sides)
    assert all(one.recipe.lr == 0.5 for one in candidates)
    assert all(one.recipe.batch_size == 16 for one in candidates)  # fitted to 20 images


def choose(seconds: float, *candidates: Candidate, given_epochs: bool = False):
    dataset = load_data("shapes")
    clock = start_clock(dataset, lambda: seconds)
    chosen, considered = choose_from_scratch(dataset, candidates, clock, are_epochs_given=given_epochs, device="cpu")
    return chosen if given_epochs else spend(chosen, clock), considered


def test_the_last_that_has_time_for_its_recipe_is_taken_and_its_epochs_fill_the_time():
    small, large = Candidate("small", SMALL, 32, Recipe(epochs=2)), Candidate("large", LARGE, 32, Recipe(epochs=3))
    chosen, considered = choose(100_000, small, large)
    assert chosen.net is LARGE
    assert chosen.recipe == Recipe(epochs=round(3 * MOST_SHARE))  # more would hardly help
    assert [(one.net_name, one.verdict) for one in considered] == [("small", "fits"), ("large", "chosen")]
    assert 0 < considered[0].seconds < considered[1].seconds


def test_one_without_the_time_for_its_recipe_is_passed_over():
    small, large = Candidate("small", SMALL, 32, Recipe(epochs=2)), Candidate("large", LARGE, 32, Recipe(epochs=10**6))
    chosen, considered = choose(1000, small, large)
    assert chosen.net is SMALL
    assert considered[0].verdict == "chosen"
    assert considered[1].verdict in ("too slow", "too slow (estimated)")


def test_the_first_is_taken_with_fewer_epochs_too_on_growing_pictures():
    chosen, _ = choose(1000, Candidate("small", SMALL, 32, Recipe(epochs=10**6), can_grow=True))
    assert 2 <= chosen.recipe.epochs < 10**6
    assert chosen.recipe.grow_from_fraction > 0


@pytest.mark.parametrize("given", [{"grow_from_fraction": 0.0}, {"compile": True}], ids=str)
def test_pictures_do_not_grow_against_what_is_given(given):
    assert not any(one.can_grow for one in propose(noise(96), (32, 48), given))
    assert all(one.can_grow for one in propose(noise(96), (32, 48), {}))


def test_on_a_machine_that_has_become_slower_fewer_epochs_fit():
    """A training that is cut short has not lowered its rate: it is begun again while that is worth it."""
    pace, recipe = Pace(1e-3, 0.0), Recipe(epochs=20, schedule="linear")
    clock = Clock(lambda: 25.0, images=1000, val=0, test=0, spare_seconds=1.0)
    start = 3.0  # to build the model, on all images: no measure of the steps

    def find(epochs_done: float, seconds: float) -> float | None:
        watch = find_slowdown(recipe, pace, clock)
        assert watch(0.1, start + 0.1) is None
        return watch(epochs_done, start + seconds)

    assert find(2, 2.3) is None  # as it was measured
    assert find(2, 2.6) is None  # the spare time covers that
    assert find(2, 6.0) == pytest.approx(5.9 / (1.9 / 20 * pace.total_seconds(recipe, 1000, 0)))
    assert find(0.2, 0.5) is None  # too early to tell
    assert find(12, 30.0) is None  # too late to begin again
    assert find(2, 200.0) is None  # not even an epoch would fit
    constant = replace(recipe, schedule="constant")
    assert find_slowdown(constant, pace, clock)(0.1, 0.1) is find_slowdown(constant, pace, clock)(2, 9.0) is None


def test_on_a_machine_that_has_become_faster_more_epochs_fit():
    """Steps may be timed while another program takes the cores, and be far faster a second later."""
    pace, recipe = Pace(0.02, 0.0), Recipe(epochs=4, schedule="linear")
    clock = Clock(lambda: 100.0, images=1000, val=0, test=0, spare_seconds=1.0)

    def find(epochs_done: float, seconds: float, candidate: Candidate | None = None) -> float | None:
        watch = find_slowdown(recipe, pace, clock, candidate)
        assert watch(0.01, 3.0) is None
        return watch(epochs_done, 3.0 + seconds)

    assert find(0.3, 0.4) == pytest.approx(0.4 / (0.29 * pace.total_seconds(recipe, 1000, 0) / 4))
    assert find(3.5, 4.0) is None  # most of it is done
    assert find(3.5, 2.0) is not None  # but in next to no time
    assert find(0.3, 0.1) is None  # too little was seen
    assert find(0.3, 4.0) is None  # not twice as fast
    chosen = Candidate("small", SMALL, 32, Recipe(epochs=8, schedule="linear"), pace=pace, can_grow=True)
    assert find(0.3, 0.4, chosen) is not None
    assert find(0.3, 0.4, replace(chosen, recipe=Recipe(epochs=2, schedule="linear"))) is None  # more hardly help
    assert fit_again(recipe, 0.1, pace, clock, None)[0].epochs == 46
    growing = replace(recipe, grow_from_fraction=0.625)
    fitting, faster = fit_again(growing, 0.1, pace, clock, chosen)
    assert (fitting.epochs, fitting.grow_from_fraction) == (24, 0.0)  # what was chosen for want of time is not kept
    assert faster.train_seconds == pytest.approx(0.002)


def test_growing_pictures_are_expected_to_be_quicker_at_first():
    pace, recipe = Pace(1e-3, 5e-4), Recipe(epochs=20, grow_from_fraction=0.5, schedule="linear")
    clock = Clock(lambda: 19.0, images=1000, val=300, test=0, spare_seconds=1.0)
    costs = pace.epoch_seconds(recipe, 1000, 300)
    assert sum(costs) == pytest.approx(pace.total_seconds(recipe, 1000, 300))
    for seconds, expected in ((sum(costs[:4]), None), (2 * sum(costs[:4]), pytest.approx(2, abs=0.01))):
        watch = find_slowdown(recipe, pace, clock)
        assert watch(0, 0.0) is None
        assert watch(4, seconds) == expected


def report_of(loss: float, **figures: float) -> Report:
    """A report on 100 images, of which only the score and the loss matter."""
    images = load_data("shapes-pose" if "mean_absolute_error" in figures else "shapes").train.take(range(100))
    logits = np.zeros((100, task_of(images).outputs), np.float32)
    return replace(score_logits(task_of(images), logits, images, 1.0), loss=loss, **figures)


def test_of_two_equal_accuracies_the_one_with_less_loss_is_better():
    assert is_better(report_of(0.9, accuracy=0.8), report_of(0.1, accuracy=0.7))
    assert is_better(report_of(0.1, accuracy=0.8), report_of(0.9, accuracy=0.8))
    assert not is_better(report_of(0.9, accuracy=0.8), report_of(0.1, accuracy=0.8))
    assert is_better(report_of(0.9, accuracy=0.8), None)
    assert not is_better(None, report_of(0.9, accuracy=0.8))


def test_numbers_of_several_units_are_compared_in_standard_deviations():
    assert is_better(report_of(0.1, mean_absolute_error=9.0), report_of(0.2, mean_absolute_error=8.0))


def test_where_more_epochs_fit_than_help_the_same_share_is_frozen():
    clock = start_clock(load_data("shapes"), lambda: 100_000)
    tuned = Candidate("tuned", SMALL, 32, Recipe(epochs=24, freeze=16), pace=Pace(1e-4, 1e-4))
    recipe = spend(tuned, clock).recipe
    assert (recipe.epochs, recipe.freeze) == (72, 48)


def test_given_epochs_stay():
    small, large = Candidate("small", SMALL, 32, Recipe(epochs=7)), Candidate("large", LARGE, 32, Recipe(epochs=10**6))
    assert choose(1000, small, large, given_epochs=True)[0].recipe == small.recipe


def test_too_short_a_time_says_how_much_more_would_do():
    with pytest.raises(RecipeError, match=r"^One epoch of small takes .* Increase --time by at least \d+ s\.$"):
        choose(0.5, Candidate("small", SMALL, 32, Recipe()))


@given(
    seconds=st.floats(10, 1000), images=st.integers(1, 10**5), test=st.integers(0, 10**4), spare=st.floats(0, 5),
    epochs=st.integers(1, 100),
)  # fmt: skip
def test_a_training_that_fits_ends_in_time(seconds, images, test, spare, epochs):
    clock, pace = Clock(lambda: seconds, images, 0, test, spare), Pace(1e-4, 1e-4, 0.5)
    recipe = clock.fit(pace, Recipe(epochs=epochs))
    whole = clock.total_seconds(pace, recipe) + clock.ending_seconds(pace) + spare
    assert recipe.epochs == 1 or whole <= seconds
