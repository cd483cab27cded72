import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Recipe, zoo
from lamina.targets import KINDS, REGRESSION, SINGLE_LABEL
from lamina.training.recipe import LEAST_BATCH, MOST_PIXELS, Home, describe_fit, fit_recipe

ZOO = [(net, name, recipe) for net in zoo.NAMES for name, recipe in zoo.load_recipes(net).items()]
COUNTS, SIDES = st.integers(1, 2_000_000), st.sampled_from([8, 28, 32, 64, 96, 224])


@pytest.mark.parametrize(
    ("net", "name", "recipe"), ZOO, ids=lambda value: value if isinstance(value, str) else ""
)
def test_at_its_home_every_recipe_of_the_zoo_is_what_it_is(net, name, recipe):
    assert fit_recipe(recipe, 50_000, 32, SINGLE_LABEL) == recipe
    assert describe_fit(recipe, recipe, 50_000, 32) == ("", "")


def steps(recipe: Recipe, images: int) -> int:
    return recipe.epochs * -(-images // recipe.batch_size)


@given(
    recipe=st.sampled_from([recipe for *_, recipe in ZOO]),
    images=COUNTS,
    side_px=SIDES,
    kind=st.sampled_from(KINDS),
)
def test_a_fitted_recipe_is_within_sensible_bounds(recipe, images, side_px, kind):
    fitted = fit_recipe(recipe, images, side_px, kind)
    assert (
        min(LEAST_BATCH, recipe.batch_size, MOST_PIXELS // side_px**2)
        <= fitted.batch_size
        <= recipe.batch_size
    )
    assert fitted.batch_size * side_px**2 <= max(MOST_PIXELS, side_px**2)
    assert 0 < fitted.lr <= recipe.lr
    assert fitted.translate_px < side_px
    assert fitted.cutout_px < side_px
    if kind is REGRESSION:
        assert (fitted.label_smoothing, fitted.flip, fitted.cutout_px) == (0.0, "off", 0)
    settings = dataclasses.replace(
        recipe,
        **{
            name: getattr(fitted, name)
            for name in (
                "epochs",
                "batch_size",
                "lr",
                "translate_px",
                "cutout_px",
                "label_smoothing",
                "flip",
            )
        },
    )
    assert fitted == settings  # nothing else is fitted


@given(images=st.integers(20, 1_000_000), factor=st.floats(1.1, 10))
def test_more_images_get_more_steps_and_fewer_epochs(images, factor):
    recipe, more = zoo.load_recipe("cnn-s"), round(images * factor)
    few, many = (
        fit_recipe(recipe, images, 32, SINGLE_LABEL),
        fit_recipe(recipe, more, 32, SINGLE_LABEL),
    )
    assert many.epochs <= few.epochs
    assert many.batch_size >= few.batch_size
    assert steps(many, more) >= 0.8 * steps(few, images)  # but for rounding


def test_a_hundredth_of_the_images_gets_a_tenth_of_the_batch():
    recipe = zoo.load_recipe("cnn-s")
    fitted = fit_recipe(recipe, 500, 32, SINGLE_LABEL)
    assert (fitted.batch_size, fitted.epochs) == (50, 32)
    assert steps(recipe, 50_000) == 1000
    assert steps(fitted, 500) == 320
    assert fitted.lr == pytest.approx(recipe.lr * 0.1**0.25, rel=0.02)


def test_what_does_not_augment_is_not_augmented():
    fitted = fit_recipe(Recipe(), 100, 32, SINGLE_LABEL)
    assert (fitted.flip, fitted.translate_px, fitted.cutout_px) == ("off", 0, 0)


def test_a_fitted_head_and_the_share_of_the_initial_weights_stay():
    own, home = Recipe(head="fitted", initial_fraction=0.3), Home(500, 96)
    for images in (50, 500, 5_000):
        fitted = fit_recipe(own, images, 96, SINGLE_LABEL, home)
        assert (fitted.head, fitted.initial_fraction) == ("fitted", 0.3)


def test_fitting_says_what_it_has_changed():
    recipe = zoo.load_recipe("cnn-s")
    assert describe_fit(recipe, fit_recipe(recipe, 500, 96, SINGLE_LABEL), 500, 96) == (
        "fitted to 500 images of 96 px (the recipe was tuned on 50,000 of 32 px)",
        (
            "epochs 10 → 32, batch_size 500 → 50, lr 0.06 → 0.034, translate_px 2 → 12, cutout_px 0"
            " → 24"
        ),
    )
