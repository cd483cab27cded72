"""Regularization layers: change activations in training only."""

from __future__ import annotations

from typing import Annotated

from lamina.nets.layer import TorchLayer, layer_class
from lamina.values import Range

__all__ = ["Dropout"]


@layer_class
class Dropout(TorchLayer):
    """Regularization: in training, sets each number to 0 with probability ``p``.

    It scales the remaining numbers by 1 / (1 - p). In evaluation it does nothing.

    Args:
        p: the probability, from 0 to below 1.

    Source: Srivastava et al., Dropout, Journal of Machine Learning Research 15 (2014).
    """

    example = "Dropout(0.5)"
    meaning = "sets a fraction of {0.p} to 0 at random"
    role = "regularization"

    p: Annotated[float, Range(0, below=1)] = 0.5
