"""``Predictor``: predict image files, PIL images or arrays with a model."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from lamina.data.arrays import Pixels
from lamina.data.decoding import InputFormat
from lamina.data.image_inputs import Chunk, ImageLike, decode_ahead, list_images
from lamina.data.preparation import Resize
from lamina.data.thumbnails import make_tile
from lamina.errors import DataError, check_type
from lamina.evaluation.predictions import (
    Prediction,
    Predictions,
    check_finite,
    make_prediction,
)
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Task

SHOWN_IMAGES = 24
TILE_PX = 96


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model with its preprocessing and the names of its classes.

    The preprocessing consists of decoding, resizing and normalization.

    Args:
        model: the trained model.
        resize: how to fit images of a different size: ``crop``, ``pad`` or ``stretch``; use the
            setting from training.

    Raises:
        LaminaError: ``model`` is not a :class:`Model`, or ``resize`` has an invalid value.

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

    def __post_init__(self) -> None:
        check_type(
            self.model,
            (Model,),
            "model",
            "a Model (run.predictor() returns a Predictor)",
            is_optional=False,
        )
        if self.resize not in get_args(Resize):
            raise DataError(
                f"resize is {self.resize!r}; it must be one of {', '.join(get_args(Resize))}."
            )

    @property
    def input_format(self) -> InputFormat:
        """The shape to which images are decoded for the model, and the way to resize them."""
        return InputFormat(self.model.in_shape, cast(Resize, self.resize))

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
        parts = [np.empty((0, len(self.task.target_names)), np.float32)]
        for chunk, rows in self._predict_chunks(images):
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is not None:
                    raise DataError(f"{name} could not be read: {reason}.")
            parts.append(rows)
        return np.concatenate(parts)

    def _predict_chunks(
        self, images: ImageLike | Iterable[ImageLike]
    ) -> Generator[tuple[Chunk, Float32[np.ndarray, "m k"]], None, None]:
        listed = list_images(images, self.input_format.shape)
        with closing(decode_ahead(listed, self.input_format)) as chunks:
            for chunk in chunks:
                yield chunk, self._compute(chunk.pixels)

    def _compute(self, pixels: Pixels) -> Float32[np.ndarray, "n k"]:
        logits = predict_logits(self.model, pixels)
        check_finite(logits)
        return self.task.probabilities(torch.from_numpy(logits)).numpy()
