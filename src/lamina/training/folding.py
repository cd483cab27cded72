"""Folds batch norms into the layers before them, by the net's structure or a forward pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lamina.kernels.norm_act import ACTIVATIONS, BATCH_NORMS, has_hooks
from lamina.nets.modules import ResidualSum, SameConv2d, Whitening
from lamina.training.activations import watch
from lamina.training.model import Model, eval_mode

# Exact types, because a subclass may do more after its multiplication.
CONVOLUTIONS = (nn.Conv2d, SameConv2d, Whitening)
RELATIVE_ERROR = 1e-3
"""Largest allowed change of the logits by ``fold_model``, relative to the largest logit."""


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """The module for prediction with folded batch norms; shares all other layers."""
    if type(module) is ResidualSum:
        return ResidualSum(_fold_row(module.body), _fold_row(module.shortcut)).train(
            module.training
        )
    return _fold_row(module) if type(module) is nn.Sequential else module


class FoldedCopy:
    """A copy of a model for prediction, folded again when weights change, not when layers do."""

    def __init__(self, model: Model) -> None:
        self._model, self._layers = model, list(model.modules())
        self._fold()

    def find(self) -> Model | None:
        """The copy, in eval mode; ``None`` if the model has hooks or is not built from a net."""
        if self._folded is None or has_hooks(self._layers):
            return None
        if self._describe_weights() != self._state:
            self._fold()
        return self._folded

    def _fold(self) -> None:
        model = self._model
        self._folded: Model | None = None
        self._weights = [*model.parameters(), *model.buffers()]
        # Custom modules may not allow copies, timm's bodies have nothing to fold, inference tensors
        # have no version.
        is_built = type(model.body) is nn.Sequential and model.net is not None
        if is_built and not any(weight.is_inference() for weight in self._weights):
            self._state = self._describe_weights()
            # The layers are copied, because their mode may differ, but not the weights.
            body = copy.deepcopy(model.body, {id(weight): weight for weight in self._weights})
            self._folded = copy.copy(model)
            self._folded._modules = {"body": fold_batch_norms(body).eval()}

    def _describe_weights(self) -> tuple[torch.device, torch.dtype, list[int]]:
        return (
            self._weights[0].device,
            self._weights[0].dtype,
            [weight._version for weight in self._weights],
        )


@torch.no_grad()
def fold_model(model: Model) -> Model:
    """A copy of any model for prediction with folded batch norms, or the model if impossible."""
    pairs = {} if has_hooks(model.modules()) else _find_pairs(model)
    if not pairs:
        return model
    folded = copy.copy(model)
    folded._modules = {"body": copy.deepcopy(model.body)}
    for convolution_path, batch_norm_path in pairs.items():
        convolution, batch_norm = (
            folded.get_submodule(path) for path in (convolution_path, batch_norm_path)
        )
        if (weights := _fuse(convolution, batch_norm)) is not None:
            convolution.weight, convolution.bias = weights
            # in timm, batch norms contain their activation
            activation = getattr(batch_norm, "act", None)
            folded.set_submodule(
                batch_norm_path, activation if isinstance(activation, nn.Module) else nn.Identity()
            )
    with eval_mode(model), eval_mode(folded):
        wanted, found = model(_sample(model)), folded(_sample(model))
    error = (found - wanted).abs().max() / wanted.abs().max()
    return folded if bool(error < RELATIVE_ERROR) else model


def _fold_row(row: nn.Sequential) -> nn.Sequential:
    folded: list[nn.Module] = []
    for layer in row:
        before = folded[-1] if folded else None
        is_pair = type(layer) in BATCH_NORMS and type(before) in (*CONVOLUTIONS, nn.Linear)
        if before is not None and is_pair and (weights := _fuse(before, layer)) is not None:
            folded[-1] = copy.deepcopy(before)
            folded[-1].weight, folded[-1].bias = weights
        elif type(before) in (*CONVOLUTIONS, nn.Linear) and isinstance(layer, ACTIVATIONS):
            # Nothing else reads the products, and memory for a second array costs more than the
            # arithmetic.
            activation = copy.copy(layer)
            activation.inplace = True
            folded.append(activation)
        else:
            folded.append(fold_batch_norms(layer))
    return nn.Sequential(*folded)


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


def _find_pairs(model: Model) -> dict[str, str]:
    """Pairs of a convolution and the batch norm after it, by module path."""
    modules = dict(model.named_modules())
    paths = [
        path for path, module in modules.items() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    calls: list[tuple[str, Tensor, Tensor]] = []
    with eval_mode(model), watch(model, paths, lambda *call: calls.append(call)):
        model(_sample(model))
    called = [path for path, _, _ in calls]
    sources = {
        id(output): path for path, _, output in calls if isinstance(modules[path], nn.Conv2d)
    }
    return {
        sources[id(given)]: path
        for path, given, _ in calls
        if isinstance(modules[path], nn.BatchNorm2d)
        and id(given) in sources
        and called.count(path) == called.count(sources[id(given)]) == 1
    }


def _sample(model: Model) -> Tensor:
    """Two fixed noise images, so that folding depends only on the weights."""
    channels, height, width = model.in_shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (2, height, width, channels), dtype=torch.uint8, generator=generator
    )
    return pixels.to(model.device)
