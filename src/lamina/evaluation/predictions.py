"""``Prediction``: what a model predicts for one image, from its probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32
from PIL import Image

from lamina.data.images import Images
from lamina.data.thumbnails import encode_png
from lamina.errors import NotFiniteError, escape, plural
from lamina.markup import Markup, card, image, note, short_table, table, wrap
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION
from lamina.text import format_table, guard, shorten
from lamina.training.task import Task

SHOWN_ROWS = 50
Predicted: TypeAlias = str | tuple[str, ...] | Mapping[str, float]


@dataclass(frozen=True, repr=False)
class Prediction:
    """A model's prediction for one image.

    Attributes:
        name: the image's path; ``image 0``, ``image 1`` … for an image without a path.
        predicted: the most likely class (``no`` or ``yes`` for binary), the labels with a
            probability above 0.5, or the numbers by name. ``None`` if the image could not be read.
            ``Recipe.aim`` chooses other thresholds for yes and for labels.
        values: the probability of each class or label by name; for regression, the numbers by name.
        problem: why the image could not be read; ``None`` if it was read.
    """

    name: str
    predicted: Predicted | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None

    def __repr__(self) -> str:
        return escape(f"Prediction({self.name!r}: {describe(self)})")

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``image`` and ``predicted``, and ``probabilities`` except for regression."""
        values: dict[str, Any] = {"image": self.name, "predicted": self.predicted}
        if not isinstance(self.predicted, Mapping):
            values["probabilities"] = self.values
        return values

    def cells(self) -> list[str]:
        """The cells of a row in a table file, in the order of :func:`name_columns`."""
        values = [f"{value:.7g}" for value in self.values.values()]
        if isinstance(self.predicted, Mapping):
            return values
        labels = self.predicted or ()
        if isinstance(labels, str):
            labels = (labels,)
        return [guard(";".join(labels)), *values]

    def _repr_html_(self) -> str:
        # the title has everything
        if self.predicted is None or isinstance(self.predicted, Mapping):
            return card(repr(self))
        ranked = sorted(self.values.items(), key=lambda pair: pair[1], reverse=True)
        rows = [(name, f"{100 * value:.1f} %") for name, value in ranked]
        return card(repr(self), short_table(("", "probability"), rows))


class Predictions(list[Prediction]):
    """A list of :class:`Prediction` that prints as a table.

    A notebook shows the first predictions with their images.

    Attributes:
        tiles: thumbnails of the first images; ``None`` for an image that could not be read.
    """

    def __init__(
        self, predictions: Iterable[Prediction] = (), tiles: Sequence[Image.Image | None] = ()
    ) -> None:
        super().__init__(predictions)
        self.tiles = list(tiles)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(prediction.name, describe(prediction)) for prediction in self[:SHOWN_ROWS]]
        if len(self) > SHOWN_ROWS:
            rows.append((f"… {len(self) - SHOWN_ROWS:,} more", ""))
        return rows

    def __repr__(self) -> str:
        return format_table(("image", "predicted"), self._rows(), texts=2)

    def _repr_html_(self) -> str:
        title = f"Predictions({plural(len(self), 'image', 'images')})"
        if not self.tiles:
            return card(title, table(("image", "prediction"), self._rows(), texts=2))
        figures = (_show_image(*pair) for pair in zip(self, self.tiles, strict=False))
        more = len(self) - len(self.tiles)
        rest = [note(f"and {more:,} more")] if more > 0 else []
        return card(title, wrap("div", *figures, kind="images"), *rest)


def _show_image(prediction: Prediction, tile: Image.Image | None) -> Markup:
    shown = [image(encode_png(tile), prediction.name)] if tile is not None else []
    lines = (
        wrap("div", describe(prediction)),
        wrap("div", shorten(PurePath(prediction.name).name), kind="faint"),
    )
    return wrap("figure", *shown, wrap("figcaption", *lines))


def check_finite(logits: Float32[np.ndarray, "n k"], images: Images | None = None) -> None:
    """Raise ``NotFiniteError`` if logits are NaN or infinite."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if not len(broken):
        return
    where = ""
    if images is not None:
        first = images.names[broken[0]]
        where = f" for {len(broken):,} of {len(logits):,} {images.split} images, first for {first}"
    raise NotFiniteError(
        f"The model's logits are NaN or infinite{where}: training diverged. Train again with a"
        " lower lr, or with gradient_clip=1."
    )


def make_prediction(task: Task, name: str, row: Sequence[float]) -> Prediction:
    """Decide a prediction from probabilities or numbers, then round these to seven digits."""
    values = task.kind.expand_row(row)
    names = task.kind.name_values(task.target_names)
    named = {key: float(f"{value:.7g}") for key, value in zip(names, values, strict=True)}
    predicted: Predicted
    if task.kind is REGRESSION:
        predicted = named
    elif task.kind is MULTI_LABEL:
        predicted = tuple(
            key for key, value, limit in zip(names, row, task.cutoffs, strict=True) if value > limit
        )
    elif task.kind is BINARY:
        predicted = "yes" if row[0] > task.cutoffs[0] else "no"
    else:
        predicted = names[max(range(len(row)), key=row.__getitem__)]
    return Prediction(name, predicted, named)


def name_columns(task: Task) -> list[str]:
    """The columns of a table file for predictions: class or labels, probabilities; or numbers."""
    if task.kind is REGRESSION:
        return list(task.target_names)
    # p(…) keeps a class called "image" or "problem" apart from other columns.
    probabilities = [f"p({name})" for name in task.kind.class_names(task.target_names)]
    return ["predicted", *probabilities]


def describe(prediction: Prediction, top: int | None = None) -> str:
    """The prediction and its probability, the ``top`` classes or labels, or the numbers."""
    predicted = prediction.predicted
    values = prediction.values
    if predicted is None:
        return f"could not be read: {prediction.problem}"
    if isinstance(predicted, Mapping):
        return ", ".join(f"{name} {value:.6g}" for name, value in predicted.items())
    labels = (predicted,) if isinstance(predicted, str) else predicted
    ranked = sorted(values, key=values.__getitem__, reverse=True)
    shown = ranked[:top] if top else [name for name in ranked if name in labels]
    return ", ".join(f"{name} {100 * values[name]:.1f} %" for name in shown) or "none"
