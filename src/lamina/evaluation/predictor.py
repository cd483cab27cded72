"""``Predictor``: predict image files, PIL images or arrays with a model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeAlias, cast, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from lamina.data.decoding import InputFormat
from lamina.data.image_inputs import Chunk, ImageLike, decode_ahead, list_images
from lamina.data.preparation import Resize
from lamina.data.thumbnails import encode_png, make_tile
from lamina.errors import DataError, check_type, escape, plural
from lamina.evaluation.folded_copy import FoldedCopy
from lamina.evaluation.outputs import check_finite
from lamina.markup import Markup, card, image, note, short_table, table, wrap
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION
from lamina.text import format_table, guard, shorten
from lamina.training.model import Model, split_pixels
from lamina.training.prediction import compute_logits, predict_logits
from lamina.training.task import Task

SHOWN_ROWS = 50
SHOWN_IMAGES = 24
TILE_PX = 96
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


def check_resize(resize: str) -> None:
    if resize not in get_args(Resize):
        raise DataError(f"resize is {resize!r}; it must be one of {', '.join(get_args(Resize))}.")


def check_bit_depth(bit_depth: object) -> None:
    if bit_depth is not None and bit_depth not in range(8, 17):
        raise DataError(f"bit_depth is {bit_depth!r}; it must be from 8 to 16, or None.")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model with its preprocessing and the names of its classes.

    The preprocessing consists of decoding, resizing and normalization.

    Args:
        model: the trained model.
        resize: how to fit images of a different size: ``crop``, ``pad`` or ``stretch``; use the
            setting from training.
        bit_depth: bits of the values in images that store more than 8 bits per channel; ``None`` to
            reject such images. Use the setting from training.

    Raises:
        LaminaError: ``model`` is not a :class:`Model`, or ``resize`` or ``bit_depth`` has an
            invalid value.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> shapes = load_data("shapes")
    >>> predictor = Predictor(build_model(load_net("mlp"), shapes.train, Recipe()))
    >>> predictor.probabilities(shapes.test.pixels[:3]).shape
    (3, 10)
    >>> [prediction.name for prediction in predictor.predict(shapes.test.pixels[:2])]
    ['image 0', 'image 1']
    """

    model: Model
    resize: str = "crop"
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        check_type(
            self.model,
            (Model,),
            "model",
            "a Model (run.predictor() returns a Predictor)",
            is_optional=False,
        )
        check_resize(self.resize)
        check_bit_depth(self.bit_depth)

    @property
    def input_format(self) -> InputFormat:
        """The shape, resizing and bit depth to which images are decoded for the model."""
        return InputFormat(self.model.in_shape, cast(Resize, self.resize), self.bit_depth)

    @cached_property
    def _folded(self) -> FoldedCopy:
        return FoldedCopy(self.model)

    @property
    def task(self) -> Task:
        """The model's task."""
        return self.model.task

    @property
    def size_px(self) -> int | None:
        """Side of the square input; ``None`` if the model's input is not square."""
        _, height, width = self.model.in_shape
        return height if height == width else None

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> Predictions:
        """Predict each image.

        Args:
            images: one image or an iterable of images: paths, bytes of encoded files, PIL images,
                or uint8 arrays or tensors (H, W) or (H, W, C) of any size. A single array may hold
                several images: (N, H, W, C), or (N, H, W) for gray images. An array with three
                dimensions is one image if the last is 1, 3 or 4.

        Returns:
            A prediction for each image, in order. A file that cannot be decoded gets a ``problem``.

        Raises:
            DataError: ``images`` contains something else, or an array that is not uint8.
            NotFiniteError: a logit is NaN or infinite.
        """
        predictions = Predictions()
        for prediction, pixels in self._predict(images):
            if len(predictions) < SHOWN_IMAGES:
                tile = None if pixels is None else make_tile(pixels, TILE_PX)
                predictions.tiles.append(tile)
            predictions.append(prediction)
        return predictions

    def iter_predict(
        self, images: ImageLike | Iterable[ImageLike]
    ) -> Generator[Prediction, None, None]:
        """Yield the predictions of :meth:`predict` one by one, for more images than fit in memory.

        Threads decode the next images meanwhile; close the iterator if you stop early.
        """
        for prediction, _ in self._predict(images):
            yield prediction

    def _predict(
        self, images: ImageLike | Iterable[ImageLike]
    ) -> Generator[tuple[Prediction, UInt8[np.ndarray, "h w c"] | None], None, None]:
        for chunk, rows in self._predict_chunks(images):
            following = iter(zip(rows.tolist(), chunk.pixels, strict=True))
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is None:
                    row, pixels = next(following)
                    yield make_prediction(self.task, name, row), pixels
                else:
                    yield Prediction(name, problem=reason), None

    def probabilities(self, images: ImageLike | Iterable[ImageLike]) -> Float32[np.ndarray, "n k"]:
        """Predict the probabilities of each image.

        Args:
            images: as for :meth:`predict`.

        Returns:
            Probabilities (N, K), one column for each class or label; (N, 1) with the probability of
            yes for binary; for regression, the numbers.

        Raises:
            DataError: an image cannot be read.
            NotFiniteError: a logit is NaN or infinite.
        """
        parts = [np.empty((0, self.task.outputs), np.float32)]
        for chunk, rows in self._predict_chunks(images):
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is not None:
                    raise DataError(f"{name} could not be read: {reason}.")
            parts.append(rows)
        return np.concatenate(parts)

    def _predict_chunks(
        self, images: ImageLike | Iterable[ImageLike]
    ) -> Generator[tuple[Chunk, Float32[np.ndarray, "m k"]], None, None]:
        listed = list_images(images, self.model.in_shape)
        with closing(decode_ahead(listed, self.input_format)) as chunks:
            for chunk in chunks:
                folded = self._folded.find()
                parts = split_pixels(chunk.pixels)
                logits = (
                    compute_logits(folded, parts)
                    if folded
                    else predict_logits(self.model, chunk.pixels)
                )
                check_finite(logits)
                yield chunk, self.task.probabilities(torch.from_numpy(logits)).numpy()


def make_prediction(task: Task, name: str, row: Sequence[float]) -> Prediction:
    """Decide a prediction from probabilities or numbers, then round these to seven digits."""
    values = task.expand_row(row)
    names = task.kind.class_names(task.target_names) or task.target_names
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
