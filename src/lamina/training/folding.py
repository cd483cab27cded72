"""Folds batch norms into the layers before them, for faster predictions."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lamina.kernels.norm_act import ACTIVATIONS, BATCH_NORMS, has_hooks
from lamina.training.model import Model, eval_mode

RELATIVE_ERROR = 1e-3
"""Largest allowed change of the logits by :func:`fold_model`, relative to the largest logit."""


@torch.no_grad()
def fold_model(model: Model) -> Model:
    """A copy for prediction, in eval mode, with folded batch norms and the same other weights.

    Returns the model itself if it has hooks or nothing to fold, or if the logits would change.
    """
    is_built = model.net is not None and not model.net.own_layers
    has_norms = any(isinstance(module, BATCH_NORMS) for module in model.modules())
    if has_hooks(model.modules()) or not (is_built or has_norms):
        return model
    weights = [*model.parameters(), *model.buffers()]
    folded = copy.copy(model)
    # The layers are copied, but not the weights.
    body = copy.deepcopy(model.body, {id(weight): weight for weight in weights})
    folded._modules = {"body": body.eval()}
    folded.training = False
    for parent in list(body.modules()):
        _fold_children(parent)
    return folded if is_built or _predicts_the_same(model, folded) else model


class FoldedCopy:
    """The folded copy of a model that is built from a net, folded again when weights change."""

    def __init__(self, model: Model) -> None:
        self._model, self._folded = model, model
        self._layers = list(model.modules())
        self._weights = [*model.parameters(), *model.buffers()]
        # Custom modules may not allow copies, inference tensors have no version.
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
        return (
            self._weights[0].device,
            self._weights[0].dtype,
            [weight._version for weight in self._weights],
        )


def _fold_children(parent: nn.Module) -> None:
    """Fold each batch norm that follows a convolution or linear layer in the order of children."""
    before: nn.Module | None = None
    for name, child in list(parent.named_children()):
        if before is not None and (fused := _fuse(before, child)) is not None:
            before.weight, before.bias = fused
            activation = getattr(child, "act", nn.Identity())  # timm's norms contain theirs
            setattr(parent, name, activation)
            continue
        follows_products = isinstance(before, nn.Conv2d | nn.Linear)
        if follows_products and isinstance(child, ACTIVATIONS) and type(parent) is nn.Sequential:
            child.inplace = True  # memory for a second array costs more than the arithmetic
        before = child
        while type(before) is nn.Sequential and len(before):
            before = before[-1]


def _fuse(layer: nn.Module, batch_norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter] | None:
    if (
        not isinstance(batch_norm, BATCH_NORMS)
        or batch_norm.running_mean is None
        or batch_norm.running_var is None
    ):
        return None
    # A batch norm without weights scales by 1 and shifts by 0.
    scale = (
        torch.ones_like(batch_norm.running_var) if batch_norm.weight is None else batch_norm.weight
    )
    shift = (
        torch.zeros_like(batch_norm.running_mean) if batch_norm.bias is None else batch_norm.bias
    )
    statistics = (batch_norm.running_mean, batch_norm.running_var, batch_norm.eps, scale, shift)
    if isinstance(layer, nn.Conv2d) and layer.out_channels == batch_norm.num_features:
        return fuse_conv_bn_weights(layer.weight, layer.bias, *statistics)
    if isinstance(layer, nn.Linear) and layer.out_features == batch_norm.num_features:
        return fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
    return None


def _predicts_the_same(model: Model, folded: Model) -> bool:
    """Compare two fixed noise images, so that folding depends only on the weights."""
    channels, height, width = model.in_shape
    generator = torch.Generator().manual_seed(0)
    shape = (2, height, width, channels)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(model.device)
    with eval_mode(model):
        expected = model(noise)
    error: Tensor = (folded(noise) - expected).abs().max() / expected.abs().max()
    return bool(error < RELATIVE_ERROR)
