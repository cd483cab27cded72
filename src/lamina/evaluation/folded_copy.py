"""A copy of a model with folded batch norms, for many small predictions."""

from __future__ import annotations

import torch

from lamina.kernels.norm_act import has_hooks
from lamina.training.model import Model
from lamina.training.prediction import fold_model


class FoldedCopy:
    """The folded copy of a model that is built from a net, folded again when weights change."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._folded = model
        self._layers = list(model.modules())
        self._weights = [*model.parameters(), *model.buffers()]
        # Custom modules may not allow copies, and inference tensors have no version.
        is_built = model.net is not None
        self._can_fold = is_built and not any(weight.is_inference() for weight in self._weights)
        self._state: tuple[torch.device, torch.dtype, list[int]] | None = None

    def find(self) -> Model | None:
        """The copy; ``None`` if the model has hooks or is not built from a net."""
        if not self._can_fold or has_hooks(self._layers):
            return None
        if self._describe_weights() != self._state:
            self._folded = fold_model(self._model)
            self._weights = [*self._model.parameters(), *self._model.buffers()]
            self._state = self._describe_weights()
        return None if self._folded is self._model else self._folded

    def _describe_weights(self) -> tuple[torch.device, torch.dtype, list[int]]:
        first = self._weights[0]
        return first.device, first.dtype, [weight._version for weight in self._weights]
