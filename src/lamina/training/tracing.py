"""Batch norms folded into the convolutions before them in any module, by watching one pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lamina.training.activations import watch
from lamina.training.folding import has_hooks
from lamina.training.model import Model, eval_mode

RELATIVE_ERROR = 1e-3
"""Largest difference of the folded model's logits from the model's own, relative to the largest logit."""


@torch.no_grad()
def fold_model(model: Model) -> Model:
    """A copy of the model for prediction, with the norms folded that directly follow a convolution, called once each.

    :func:`~lamina.training.folding.fold_norms` folds lamina's own nets by their structure; this serves modules whose
    structure only a pass shows, as timm's. The model itself is returned where nothing can be folded, where it has
    hooks, or where folding would change its logits: a layer may do more than its class tells, or use what is between.
    """
    pairs = {} if has_hooks(model) else _find_pairs(model)
    if not pairs:
        return model
    folded = copy.copy(model)
    folded._modules = {"body": copy.deepcopy(model.body)}
    for convolution_path, norm_path in pairs.items():
        convolution, norm = folded.get_submodule(convolution_path), folded.get_submodule(norm_path)
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        activation = getattr(norm, "act", None)  # timm's norms hold theirs
        folded.set_submodule(norm_path, activation if isinstance(activation, nn.Module) else nn.Identity())
    with eval_mode(model), eval_mode(folded):
        wanted, found = model(_sample(model)), folded(_sample(model))
    error = (found - wanted).abs().max() / wanted.abs().max()
    return folded if bool(error < RELATIVE_ERROR) else model


def _find_pairs(model: Model) -> dict[str, str]:
    """The convolutions whose output goes into a norm, and these norms, by module path."""
    modules = dict(model.named_modules())
    paths = [path for path, module in modules.items() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    calls: list[tuple[str, Tensor, Tensor]] = []
    with eval_mode(model), watch(model, paths, lambda *call: calls.append(call)):
        model(_sample(model))
    called = [path for path, _, _ in calls]
    sources = {id(output): path for path, _, output in calls if isinstance(modules[path], nn.Conv2d)}
    return {
        sources[id(given)]: path
        for path, given, _ in calls
        if isinstance(modules[path], nn.BatchNorm2d)
        and id(given) in sources
        and called.count(path) == called.count(sources[id(given)]) == 1
    }


def _sample(model: Model) -> Tensor:
    """Two images of noise, the same each time, so that whether a model is folded depends on its weights alone."""
    channels, height, width = model.in_shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, height, width, channels), dtype=torch.uint8, generator=generator)
    return pixels.to(model.device)
