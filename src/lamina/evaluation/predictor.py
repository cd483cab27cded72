"""``Predictor``: predict image files, PIL images or arrays with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch
from jaxtyping import Float32

from lamina.data.arrays import Pixels
from lamina.data.decoding import InputFormat
from lamina.data.preparation import Resize
from lamina.errors import DataError, check_type
from lamina.evaluation.image_predictor import ImagePredictor
from lamina.evaluation.predictions import check_finite
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Task


@dataclass(frozen=True, eq=False)
class Predictor(ImagePredictor):
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

    def _compute(self, pixels: Pixels) -> Float32[np.ndarray, "n k"]:
        logits = predict_logits(self.model, pixels)
        check_finite(logits)
        return self.task.probabilities(torch.from_numpy(logits)).numpy()
