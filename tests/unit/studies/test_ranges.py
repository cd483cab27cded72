"""Ranges of a search: how they are parsed, and which are refused."""

from __future__ import annotations

import re

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lamina import LaminaError
from lamina.data import Dataset
from lamina.runs.start import as_net_choice
from lamina.studies.search import Search
from lamina.studies.space import insert_sizes, parse_range, parse_sizes
from support.searches import NET, noise_with_val


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"lr": "0.1..0.01"}, "LOW must be less than HIGH"),
        ({"lr": "0..0.1:log"}, "a logarithmic range must begin above 0"),
        ({"batch_size": "1.5..3"}, "batch_size takes whole numbers"),
        ({"seed": "1..3"}, "seed cannot be tuned."),
        ({"larning": "1..3"}, "larning is not a setting of a recipe."),
        ({"lr": "0.1"}, "lr is '0.1'; it must be a range or a list of different values"),
        (
            {"batch_size": "50,50"},
            "batch_size is '50,50'; it must be a range or a list of different values",
        ),
        (
            {"lr": "0.1..1e-3:Log"},
            "a list of different values. Use a range, as in lr=LOW..HIGH or lr=LOW..HIGH:log",
        ),
        ({"lr": "0.1..0.2,0.5"}, "its ends must be numbers"),
        (
            {"batch-size": "50,100"},
            "batch-size is not a setting of a recipe. Did you mean batch_size?",
        ),
        ({"momentum": "0..3"}, "momentum"),
        ({"dropout": "0,0.5"}, "Dropout"),  # the net has no such layer
        ({"translate_px": "1,8"}, "translate_px"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(data, over, message):
    search = Search(NET, None, {}, over, {}, data, as_net_choice)
    with pytest.raises(LaminaError, match=re.escape(message)):
        search.check()


def test_invalid_sizes_are_refused():
    with pytest.raises(LaminaError, match="The net mlp has no size with the name width"):
        parse_sizes({"width": "2..4"}, "mlp")
    with pytest.raises(LaminaError, match="has no size with the name width"):
        parse_sizes({"width": "2..4"}, NET)


def test_ranges_are_parsed():
    assert parse_range("lr", "1e-4..1e-1:log") == FloatDistribution(1e-4, 1e-1, log=True)
    assert parse_range("epochs", "2..9", is_whole=True) == IntDistribution(2, 9)
    assert parse_range("class_weights", "true,false") == CategoricalDistribution((True, False))
    assert parse_range("flip", "off, random") == CategoricalDistribution(("off", "random"))
    assert (
        insert_sizes("Conv2d(size, kernel_size=size), Linear(size)", {"size": 3})
        == "Conv2d(3, kernel_size=3), Linear(3)"
    )
