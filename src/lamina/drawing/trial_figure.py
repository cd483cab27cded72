"""A tuning's trials, drawn by Optuna: the score by each value, and how important each value is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from lamina.drawing.style import percent_formatter
from lamina.targets import Score

BEST_FRACTION = 0.25  # of the trials, which importances compare with all trials


def draw_trials(study: Any, metric: str) -> Figure:
    """Draw a point for each finished trial of an Optuna study, in a panel for each value.

    Trials that were stopped or failed have no score and are not drawn; the title counts them.
    """
    from optuna.visualization.matplotlib import plot_slice

    score = Score(metric, 0.0)
    with _drawing_by_optuna():
        plot_slice(study, target=_find_value, target_name=f"val {score.title}")
        figure = pyplot.gcf()
    pyplot.close(figure)
    if score.is_fraction:
        figure.axes[0].yaxis.set_major_formatter(percent_formatter())
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    finished = sum(bool(np.isfinite(_find_value(trial))) for trial in trials)
    figure.suptitle(
        f"{finished} trials trained to the end; {len(trials) - finished} stopped or failed earlier"
    )
    return figure


def draw_importances(study: Any, metric: str) -> Figure:
    """Draw how much each value of an Optuna study distinguishes the best trials from all others.

    Source: PED-ANOVA, Watanabe et al., IJCAI 2023.
    """
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances

    with _drawing_by_optuna():
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_FRACTION)
        name = f"val {Score(metric, 0.0).title}"
        axes = plot_param_importances(study, evaluator=evaluator, target_name=name)
        axes.set_title("What distinguishes the best quarter of the trials", loc="left")
        figure = pyplot.gcf()
    pyplot.close(figure)
    return figure


def _find_value(trial: Any) -> float:
    """A trial's score; NaN if it has none, or if it diverged and its score is a placeholder."""
    if trial.state.name != "COMPLETE" or "error" in trial.user_attrs:
        return float("nan")
    return float(trial.value)


@contextmanager
def _drawing_by_optuna() -> Iterator[None]:
    """Keep Optuna's style and figures out of the caller's pyplot."""
    from optuna.exceptions import ExperimentalWarning

    with matplotlib.rc_context(), pyplot.ioff(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # if all trials have the same value
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)
        yield
