"""Number format of products: bf16 if the processor supports it and layers are large, else fp32."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

from lamina.kernels.library import Kernels, NoKernels
from lamina.kernels.norm_act import join_layers
from lamina.nets.modules import ResidualSum
from lamina.training.device import Choice
from lamina.training.hooks import black_images, record_calls
from lamina.training.model import Model

# Multiply-adds per image of nets with and without convolutions, below which conversion to bf16
# takes as long as the products save.
LEAST_CONVOLVED = 1_000_000
LEAST_MULTIPLIED = 100_000
Module = TypeVar("Module", bound=nn.Module)
DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "MPS device"}


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], model: Model) -> Choice:
    """The number format of products; ``auto`` depends only on the device and the net's size."""
    if wanted != "auto":
        return Choice(wanted, "as requested")
    device = model.device.type
    this = f"this {DEVICES.get(device, device)}"
    if not multiplies_bf16(device):
        return Choice("fp32", f"{this} has no fast bf16 arithmetic")
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    least = LEAST_CONVOLVED if convolves else LEAST_MULTIPLIED
    if count_multiply_adds(model) < least:
        return Choice("fp32", "the net is too small to gain from bf16")
    return Choice("bf16", f"{this} has bf16 arithmetic")


def multiplies_bf16(device: str) -> bool:
    """Whether a device multiplies matrices faster in bf16 than in fp32; false for ARM and MPS."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def use_kernels(model: Model, kernels: Kernels | NoKernels) -> Model:
    """A model for training, with the same weights and hooks, that computes rows by kernels."""
    if isinstance(kernels, NoKernels) or model.device.type != "cpu":
        return model
    copied = _copy(model, {"body": _join_rows(model.body, kernels)})
    copied.training = True
    return copied


def _join_rows(module: nn.Module, kernels: Kernels) -> nn.Module:
    if type(module) is ResidualSum:
        return _copy(
            module, {name: _join_rows(row, kernels) for name, row in module.named_children()}
        )
    if type(module) is not nn.Sequential:
        return module
    layers = join_layers(list(module), kernels)
    return _copy(module, {str(place): _join_rows(layer, kernels) for place, layer in layers})


def _copy(module: Module, children: dict[str, nn.Module]) -> Module:
    """A module with ``module``'s parameters, buffers and hooks, but with other children."""
    copied = copy.copy(module)
    copied._modules = {**children}
    return copied


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
