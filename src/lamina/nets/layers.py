"""All layers by name. Each is in the file of its kind, and in the ``__all__`` of that file."""

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
