"""Runs with code that was changed in between are not mixed in one study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lamina import Parts, Recipe, Variant, compare, cross_validate
from lamina.errors import RunError
from lamina.studies.seeds import iter_seeds
from support.own_code import LOSS, MAKER, MODULE, rewrite
from support.runs import DATA

RECIPE = Recipe(epochs=1, batch_size=10)


def compare_own(own: ModuleType, folder: Path) -> Any:
    variant = Variant("own", own.make, RECIPE, Parts(loss=own.weigh))
    settings = {"seeds": 2, "name": "s", "runs_dir": folder, "progress": False}
    return compare(variant, "Flatten(), Output(),epochs=1", DATA, **settings)


def validate_own(own: ModuleType, folder: Path) -> Any:
    settings = {"folds": 2, "name": "s", "runs_dir": folder, "progress": False}
    return cross_validate(DATA, own.make, RECIPE, parts=Parts(loss=own.weigh), **settings).scores


def repeat_own(own: ModuleType, folder: Path) -> Any:
    begin = partial(iter_seeds, DATA, own.make, RECIPE, parts=Parts(loss=own.weigh))
    *_, seeds = begin(seeds=2, name="s", runs_dir=folder)
    return seeds.scores


@pytest.mark.parametrize("study", [compare_own, validate_own, repeat_own])
@pytest.mark.parametrize("change", [LOSS, MODULE])
def test_changed_source_is_refused(own, tmp_path, study: Callable, change):
    first = study(own, tmp_path)
    assert study(own, tmp_path) == first
    rewrite(own, *change)
    with pytest.raises(RunError, match=r"The code of .* has changed since"):
        study(own, tmp_path)
    rewrite(own, "", "")
    assert study(own, tmp_path) == first


def test_a_changed_function_that_makes_the_module_is_refused(own, tmp_path):
    compare_own(own, tmp_path)
    rewrite(own, *MAKER)
    with pytest.raises(RunError, match=r"^The code of net of own has changed since .*/s began\."):
        compare_own(own, tmp_path)
