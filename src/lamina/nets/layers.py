"""All layers by name. Each is defined in the file for its kind, whose ``__all__`` lists it."""

from __future__ import annotations

from lamina.nets import (
    activation,
    convolution,
    linear,
    normalization,
    pooling,
    regularization,
    residual,
)
from lamina.nets.layer import Layer

KINDS = (
    activation,
    convolution,
    linear,
    normalization,
    pooling,
    regularization,
    residual,
)
LAYERS: dict[str, type[Layer]] = {
    name: getattr(kind, name) for kind in KINDS for name in kind.__all__
}
