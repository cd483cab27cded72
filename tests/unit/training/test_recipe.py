import dataclasses
import inspect
import json
import re
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import RecipeError
from lamina.training.recipe import OPTIMIZERS, SCHEDULES, Recipe, overlay
from lamina.values import from_json_values, to_json_values

recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 10_000),
    optimizer=st.sampled_from(["adam", "adamw", "rmsprop", "sgd", "muon"]),
    lr=st.floats(0, 10),
    momentum=st.floats(0, 0.99),
    schedule=st.sampled_from(["constant", "cosine", "linear"]),
    class_weights=st.booleans(),
    dropout=st.none() | st.floats(0, 0.99),
    flip=st.sampled_from(["off", "random", "alternating"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(recipes)
def test_a_recipe_survives_json_and_its_own_repr(recipe):
    assert (
        from_json_values(Recipe, json.loads(json.dumps(to_json_values(recipe))), "recipe") == recipe
    )
    assert eval(repr(recipe), {"Recipe": Recipe}) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number from 1 to 100,000, got 0."),
        ({"epochs": 2.5}, "epochs must be a whole number from 1 to 100,000, got 2.5."),
        ({"lr": float("nan")}, "lr must be a number of at least 0, got nan."),
        (
            {"lr": 10**400},
            "lr must be a number of at least 0, got 100000000000000000...0000000000000000000.",
        ),
        ({"gradient_clip": 0.0}, "gradient_clip must be a number above 0, got 0.0."),
        ({"lr": "fast"}, "lr must be a number of at least 0, got 'fast'."),
        ({"momentum": 1.0}, "momentum must be a number from 0 to below 1, got 1.0."),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1, got 1.0."),
        (
            {"seed": 2**63},
            (
                "seed must be a whole number from 0 to 9,223,372,036,854,775,807, got"
                " 9223372036854775808."
            ),
        ),
        (
            {"optimizer": "adm"},
            (
                "optimizer must be 'adam', 'adamw', 'rmsprop', 'sgd' or 'muon', got 'adm'. Did you"
                " mean adam?"
            ),
        ),
    ],
)
def test_an_invalid_value_is_rejected_with_what_was_expected(values, message):
    with pytest.raises(RecipeError) as rejected:
        Recipe(**values)
    assert str(rejected.value) == message


def test_a_notebook_shows_the_changed_fields_with_their_texts():
    body = Recipe(lr=0.1, flip="random")._repr_html_().partition("<tbody>")[2]
    cells = re.findall("<td[^>]*>(.*?)</td>", body)
    assert cells[:3] == ["lr", "0.1", "peak learning rate"]
    assert cells[3:5] == ["flip", "&#39;random&#39;"]
    assert len(cells) == 6
    assert "all fields have their defaults" in Recipe()._repr_html_()
    shown = inspect.getdoc(Recipe)
    for field in dataclasses.fields(Recipe):
        assert f"\n    {field.name}: " in shown
    assert "\n    lr: peak learning rate\n" in shown


def test_the_choices_of_a_recipe_are_the_entries_of_the_tables():
    hints = typing.get_type_hints(Recipe)
    assert typing.get_args(hints["optimizer"]) == tuple(OPTIMIZERS)
    assert typing.get_args(hints["schedule"]) == tuple(SCHEDULES)
    assert overlay(Recipe(), {"optimizer": "sgd"}).lr == OPTIMIZERS["sgd"].usual_lr
