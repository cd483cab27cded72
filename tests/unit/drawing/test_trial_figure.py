"""Figures of the trials of a search."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib import pyplot

from lamina.drawing.trial_figure import draw_importances, draw_trials
from support.searches import few_finals  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_finals")


@pytest.fixture
def style():
    """The style of matplotlib and the figures of pyplot, which drawing must not change."""
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.usefixtures("style")
def test_the_figure_has_a_point_for_each_finished_trial():
    study = optuna.create_study(direction="maximize")
    for number, (state, lr) in enumerate(
        [("COMPLETE", 0.1), ("PRUNED", 0.01), ("COMPLETE", 0.001), ("FAIL", 0.2)]
    ):
        trial = study.ask()
        trial.suggest_float("lr", lr, lr * 1.001, log=True)
        trial.suggest_categorical("flip", ["off"])
        trial.report(0.3, 1)
        study.tell(
            trial, number / 10 if state == "COMPLETE" else None, optuna.trial.TrialState[state]
        )
    diverged = study.ask()
    diverged.set_user_attr("error", "diverged")
    study.tell(diverged, 0.0)
    with warnings.catch_warnings(action="error"):
        figure = draw_trials(study, "accuracy")
    panels = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}
    assert set(panels) == {"flip", "lr"}
    points = panels["lr"].collections[0].get_offsets()
    assert sorted(map(tuple, np.round(points, 3).tolist())) == [(0.001, 0.2), (0.1, 0.0)]
    assert panels["flip"].get_ylabel() == "val accuracy"
    assert figure.get_suptitle() == "2 trials trained to the end; 3 stopped or failed earlier"
    figure.canvas.draw()
    assert "20 %" in [text.get_text() for text in panels["flip"].get_yticklabels()]


@pytest.mark.usefixtures("style")
def test_importances_are_drawn():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_float("lr", 0, 1) + 0.01 * trial.suggest_float("dropout", 0, 1),
        40,
    )
    with warnings.catch_warnings(action="error"):
        (axes,) = draw_importances(study, "accuracy").axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    importances = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["lr"] > 0.8
