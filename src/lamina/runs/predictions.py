"""Predictions as a table, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lamina.evaluation import Prediction, Predictor
from lamina.evaluation.pictures import find_pictures
from lamina.text import format_table, html_table

HEADS = ("picture", "answer")
SHOWN_ROWS = 50


class Predictions(list[Prediction]):
    """Predictions that print as a table."""

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(prediction.name, describe(prediction)) for prediction in self[:SHOWN_ROWS]]
        return rows if len(self) <= SHOWN_ROWS else [*rows, (f"… {len(self) - SHOWN_ROWS:,} more", "")]

    def __repr__(self) -> str:
        return format_table(HEADS, self._rows(), texts=2)

    def _repr_html_(self) -> str:
        return html_table(HEADS, self._rows(), texts=2)


def predict_paths(predictor: Predictor, paths: Iterable[str | Path]) -> Predictions:
    """A prediction for each picture that the paths name, then for each path that names none, with the reason."""
    files, problems = find_pictures(list(paths))
    not_found = (Prediction(problem.path, problem=problem.reason) for problem in problems)
    return Predictions([*predictor.predict(files), *not_found])


def describe(prediction: Prediction, top: int | None = None) -> str:
    """The answer with its probability, or the ``top`` most likely classes or labels; numbers for regression."""
    answer, values = prediction.answer, prediction.values
    if answer is None:
        return f"could not be read: {prediction.problem}"
    if isinstance(answer, Mapping):
        return ", ".join(f"{name} {value:.4g}" for name, value in answer.items())
    answers = (answer,) if isinstance(answer, str) else answer
    ranked = sorted(values, key=values.__getitem__, reverse=True)
    shown = ranked[:top] if top else [name for name in ranked if name in answers]
    return ", ".join(f"{name} {100 * values[name]:.1f} %" for name in shown) or "none"
