"""Number format of products: bf16 if the processor supports it and layers are large, else fp32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from lamina.kernels.library import Kernels
from lamina.kernels.norm_act import join_layers
from lamina.nets.modules import Bfloat16Linear, OneDnnLinear, ResidualSum, SameConv2d, Whitening
from lamina.training.device import Choice
from lamina.training.hooks import black_images, record_calls
from lamina.training.model import Model

# Limits of a net and of a linear layer, below which conversion to bf16 takes as long as the
# products save.
LEAST_MULTIPLY_ADDS = 1_000_000
LEAST_WEIGHTS = 100_000
Module = TypeVar("Module", bound=nn.Module)
DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "MPS device"}


@dataclass(frozen=True)
class Precision(Choice):
    """The number format with its reason, and module paths of linear layers that stay in float32."""

    float32_layers: tuple[str, ...] = ()


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], model: Model) -> Precision:
    """The number format of products; ``auto`` depends only on the device and the layer sizes."""
    if wanted != "auto":
        return Precision(wanted, "as requested")
    device = model.device.type
    this = f"this {DEVICES.get(device, device)}"
    if not multiplies_bf16(device):
        return Precision("fp32", f"{this} has no fast bf16 arithmetic")
    small: tuple[str, ...] = ()
    if _is_linear(model):
        weights = {name: layer.weight.numel() for name, layer in _find_linear(model).items()}
        small = tuple(name for name, count in weights.items() if count < LEAST_WEIGHTS)
        is_small = len(small) == len(weights)
    else:
        is_small = count_multiply_adds(model) < LEAST_MULTIPLY_ADDS
    if is_small:
        return Precision("fp32", "the net is too small to gain from bf16")
    exceptions = f"; fp32 for small layers: {', '.join(small)}" if small else ""
    return Precision("bf16", f"{this} has bf16 arithmetic{exceptions}", small)


def multiplies_bf16(device: str) -> bool:
    """Whether a device multiplies matrices faster in bf16 than in fp32; false for ARM and MPS."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def prepare(model: Model, precision: Precision, kernels: Kernels | None = None) -> Model:
    """A twin for training steps that shares all weights and hooks but may compute layers together.

    Args:
        model: Model to train, on its device; it is not changed.
        precision: Number format of products.
        kernels: C functions that compute rows of layers; without them, torch computes each layer.
    """
    linear = _find_linear(model)
    kinds: dict[nn.Module, type[nn.Linear]] = {}
    if precision.value == "bf16" and _is_linear(model):
        exact = precision.float32_layers
        kinds = {layer: Bfloat16Linear for name, layer in linear.items() if name not in exact}
    elif precision.value == "fp32" and _multiplies_by_onednn(model):
        large = [layer for layer in linear.values() if layer.weight.numel() >= LEAST_WEIGHTS]
        kinds = dict.fromkeys(large, OneDnnLinear)
    twin = _copy(model, {"body": _prepare(model.body, kinds, kernels)})
    twin.training = True
    return twin


def rounds_images(twin: Model, *, autocasts: bool) -> bool:
    """Whether a twin's first product rounds images to bf16, so that they may be bf16 already."""
    first = next(
        (layer for layer in twin.body.children() if not isinstance(layer, nn.Flatten)), None
    )
    convolves = autocasts and type(first) in (nn.Conv2d, SameConv2d, Whitening)
    return type(twin.body) is nn.Sequential and (convolves or type(first) is Bfloat16Linear)


def uses_autocast(model: Model, precision: Precision) -> bool:
    """Whether torch's autocast, rather than ``prepare``, chooses the products in bf16."""
    return precision.value == "bf16" and not _is_linear(model)


def _prepare(
    module: nn.Module, kinds: Mapping[nn.Module, type[nn.Linear]], kernels: Kernels | None
) -> nn.Module:
    if module in kinds:
        twin = _copy(module, {})
        twin.__class__ = kinds[module]
        return twin
    if type(module) is ResidualSum:
        return _copy(
            module, {name: _prepare(row, kinds, kernels) for name, row in module.named_children()}
        )
    if type(module) is not nn.Sequential:
        return module
    layers = dict(enumerate(module))
    if kernels is not None and kernels.norm_act_forward:
        layers = dict(join_layers(list(module), kernels))
    return _copy(
        module, {str(place): _prepare(layer, kinds, kernels) for place, layer in layers.items()}
    )


def _copy(module: Module, children: dict[str, nn.Module]) -> Module:
    """A module with ``module``'s parameters, buffers and hooks, but with other children."""
    twin = copy.copy(module)
    twin._modules = {**children}
    return twin


def _is_linear(model: Model) -> bool:
    on_cpu = model.device.type == "cpu"
    return (
        on_cpu
        and model.net is not None
        and not any(isinstance(module, nn.Conv2d) for module in model.modules())
    )


def _multiplies_by_onednn(model: Model) -> bool:
    """Whether linear layers in float32 can use AVX-512, which MKL, torch's default, may not use."""
    return (
        model.net is not None
        and model.device.type == "cpu"
        and model._scale.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # private, so it may disappear
    )


def _find_linear(model: Model) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def count_multiply_adds(model: Model) -> int:
    """Multiply-adds per image; in a custom module, of its convolutions and linear layers."""
    if model.net is not None:
        return model.net.multiply_adds(model.in_shape)
    layers = {
        path: module.weight
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    calls = record_calls(model, black_images(model, 1), layers)
    return sum(call.output.numel() * layers[path][0].numel() for path, call in calls.items())
