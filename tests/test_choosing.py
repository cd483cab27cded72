import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Dataset, Images, Recipe, load_data, zoo
from lamina.errors import RecipeError
from lamina.nets import parse_net
from lamina.runs.choosing import (
    MOST_SHARE,
    Candidate,
    Clock,
    choose_from_scratch,
    find_sides,
    propose,
    spend,
    start_clock,
)
from lamina.training.timing import Pace

SMALL, LARGE = parse_net("Flatten(), Output()"), parse_net("Flatten(), Linear(512), ReLU(), Linear(512), Output()")


def noise(side: int, count: int = 20, sizes: int | None = None) -> Dataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    images = Images.from_arrays(pixels, np.arange(count) % 2)
    if sizes is None:
        return Dataset.from_images(images, test=images)
    originals = np.full((count, 2), sizes, np.int32)
    images = Images(pixels, images.targets, images.target_names, images.names, "train", originals)
    return Dataset("photos", "abc", images, size_px=side)


@pytest.mark.parametrize(
    ("dataset", "sides"),
    [
        (noise(8), (8,)),
        (noise(32), (32,)),
        (noise(40), (32, 40)),
        (noise(80), (32, 48, 64, 80)),
        (noise(96), (96,)),
        (noise(200), (96, 128, 160)),
        (noise(64, sizes=375), (96, 128, 160)),
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
    assert [(one.net_name, one.verdict) for one in considered] == [("small", "has time"), ("large", "chosen")]
    assert 0 < considered[0].seconds < considered[1].seconds


def test_one_without_the_time_for_its_recipe_is_passed_over():
    small, large = Candidate("small", SMALL, 32, Recipe(epochs=2)), Candidate("large", LARGE, 32, Recipe(epochs=10**6))
    chosen, considered = choose(1000, small, large)
    assert chosen.net is SMALL
    assert considered[0].verdict == "chosen"
    assert considered[1].verdict in ("too slow", "too slow, by its size")


def test_the_first_is_taken_with_fewer_epochs_too_on_growing_pictures():
    chosen, _ = choose(1000, Candidate("small", SMALL, 32, Recipe(epochs=10**6)))
    assert 2 <= chosen.recipe.epochs < 10**6
    assert chosen.recipe.grow_from_fraction > 0


def test_where_more_epochs_fit_than_help_the_same_share_is_frozen():
    clock = start_clock(load_data("shapes"), lambda: 100_000)
    tuned = Candidate("tuned", SMALL, 32, Recipe(epochs=24, freeze=16), pace=Pace(1e-4, 1e-4))
    recipe = spend(tuned, clock).recipe
    assert (recipe.epochs, recipe.freeze) == (72, 48)


def test_given_epochs_stay():
    small, large = Candidate("small", SMALL, 32, Recipe(epochs=7)), Candidate("large", LARGE, 32, Recipe(epochs=10**6))
    assert choose(1000, small, large, given_epochs=True)[0].recipe == small.recipe


def test_too_short_a_time_says_how_much_more_would_do():
    with pytest.raises(RecipeError, match=r"An epoch of small takes .* Allow at least \d+ s more by --time\.$"):
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
