"""``ImagePredictor``: from image files, PIL images or arrays to predictions. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import closing

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data.arrays import Pixels
from lamina.data.decoding import InputFormat
from lamina.data.image_inputs import Chunk, ImageLike, decode_ahead, list_images
from lamina.data.thumbnails import make_tile
from lamina.errors import DataError
from lamina.evaluation.predictions import Prediction, Predictions, make_prediction
from lamina.targets import Decision

SHOWN_IMAGES = 24
TILE_PX = 96


class ImagePredictor(ABC):
    """Decodes images and makes predictions; subclasses compute the probabilities."""

    @property
    @abstractmethod
    def input_format(self) -> InputFormat:
        """The shape, resizing and bit depth to which images are decoded for the model."""

    @property
    @abstractmethod
    def task(self) -> Decision:
        """What the model predicts."""

    @abstractmethod
    def _compute(self, pixels: Pixels) -> Float32[np.ndarray, "n k"]:
        """The probabilities of decoded images, or the numbers; raises ``NotFiniteError``."""

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
