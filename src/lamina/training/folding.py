"""Batch norms folded into the weights before them, for faster prediction."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lamina.nets.modules import Bfloat16Linear, ResidualSum, SameConv2d, Whitening

# By exact type: a subclass may do more after its multiplication.
CONVOLUTIONS = (nn.Conv2d, SameConv2d, Whitening)
LINEAR = (nn.Linear, Bfloat16Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_norms(module: nn.Module) -> nn.Module:
    """The module for prediction, with batch norms folded into the convolutions and linear layers before them.

    With its running statistics a norm scales and shifts each channel by constants, which the layer before it can do.
    Other norms stay: after a pool, a dropout or an activation, and in modules that are neither ``nn.Sequential`` nor
    ``ResidualSum``. The given module does not change; it shares its other layers with the result.

    >>> fold_norms(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU()))
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): ReLU()
    )
    """
    if type(module) is ResidualSum:
        return ResidualSum(_fold_row(module.body), _fold_row(module.shortcut)).train(module.training)
    return _fold_row(module) if type(module) is nn.Sequential else module


def has_hooks(module: nn.Module) -> bool:
    """Whether a forward hook is registered, on a layer or on all: it would not see the layers that folding replaces."""
    for_all = nn.modules.module
    return bool(for_all._global_forward_hooks or for_all._global_forward_pre_hooks) or any(
        layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()
    )


def _fold_row(row: nn.Sequential) -> nn.Sequential:
    folded: list[nn.Module] = []
    for layer in row:
        if folded and (merged := _merge(folded[-1], layer)) is not None:
            folded[-1] = merged
        else:
            folded.append(fold_norms(layer))
    return nn.Sequential(*folded)


def _merge(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    """One layer equal to both in prediction, or None."""
    if not isinstance(norm, NORMS) or type(norm) not in NORMS or norm.running_mean is None or norm.running_var is None:
        return None
    # A norm without weights scales by 1 and shifts by 0.
    scale = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    shift = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    statistics = (norm.running_mean, norm.running_var, norm.eps, scale, shift)
    if isinstance(layer, nn.Conv2d) and type(layer) in CONVOLUTIONS and layer.out_channels == norm.num_features:
        weights = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics)
    elif isinstance(layer, nn.Linear) and type(layer) in LINEAR and layer.out_features == norm.num_features:
        weights = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
    else:
        return None
    merged = copy.deepcopy(layer)
    merged.weight, merged.bias = weights
    return merged
