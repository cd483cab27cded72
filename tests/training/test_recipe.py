import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import RecipeError
from lamina.training.recipe import USUAL_LR, Recipe

recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 10_000),
    optimizer=st.sampled_from(["adam", "adamw", "rmsprop", "sgd", "muon"]),
    lr=st.floats(0, 10),
    momentum=st.floats(0, 0.99),
    schedule=st.sampled_from(["constant", "cosine", "linear", "one-cycle"]),
    balance=st.sampled_from(["off", "on"]),
    dropout=st.none() | st.floats(0, 0.99),
    flip=st.sampled_from(["off", "random", "alternating"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(recipes)
def test_a_recipe_survives_json_and_its_own_repr(recipe):
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert eval(repr(recipe), {"Recipe": Recipe}) == recipe


def test_a_whole_number_is_taken_for_a_fraction():
    assert type(Recipe(lr=1).lr) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs was 0, but takes a whole number of 1 or more."),
        ({"epochs": 2.5}, "epochs was 2.5, but takes a whole number of 1 or more."),
        ({"epochs": True}, "epochs was True, but takes a whole number of 1 or more."),
        ({"lr": float("nan")}, "lr was nan, but takes a number of 0 or more."),
        ({"lr": float("inf")}, "lr was inf, but takes a number of 0 or more."),
        ({"lr": "fast"}, "lr was 'fast', but takes a number of 0 or more."),
        ({"momentum": 1.0}, "momentum was 1.0, but takes a number of 0 or more and less than 1."),
        ({"dropout": 1.0}, "dropout was 1.0, but takes a number of 0 or more and less than 1."),
        (
            {"optimizer": "adm"},
            "optimizer was 'adm', but takes one of adam, adamw, rmsprop, sgd, muon. Did you mean adam?",
        ),
        (
            {"optimizer": ["adam"]},
            "optimizer was ['adam'], but takes one of adam, adamw, rmsprop, sgd, muon. Did you mean adam?",
        ),
        ({"epoch": 3}, "A recipe has no field 'epoch'. Did you mean epochs?"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(values, message):
    with pytest.raises(RecipeError) as refused:
        Recipe.from_json(values)
    assert str(refused.value) == message


def test_every_optimizer_has_a_usual_learning_rate():
    optimizer = next(field for field in dataclasses.fields(Recipe) if field.name == "optimizer")
    assert all(repr(name) in str(optimizer.type) or name in str(optimizer.type) for name in USUAL_LR)
    assert set(USUAL_LR) == {"adam", "adamw", "rmsprop", "sgd", "muon"}
