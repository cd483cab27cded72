"""The trials of a tuning, drawn by Optuna: parallel coordinates, and how much each value matters."""

from __future__ import annotations

import warnings
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure

from lamina.targets import Score


def draw_trials(study: Any, metric: str, *, is_by_value: bool = False) -> Figure:
    """Draw a line for each trial that was trained to the end, from its score to its values.

    ``is_by_value`` draws instead how much each value matters; the bars add up to 1 (PED-ANOVA; Watanabe et al., IJCAI
    2023).
    """
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib

    axes: Any
    title = f"val {Score(metric, 0.0).title}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its figures experimental
        if is_by_value:
            evaluator = PedAnovaImportanceEvaluator()
            axes = matplotlib.plot_param_importances(study, evaluator=evaluator, target_name=title)
        else:
            axes = matplotlib.plot_parallel_coordinate(study, target_name=title)
    figure: Figure = axes.figure
    pyplot.close(figure)
    return figure
