"""Nets of timm, and random weights of its small nets as safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def create_timm(name: str, **arguments: int) -> nn.Module:
    """A net of timm, which takes long to import."""
    import timm

    return timm.create_model(name, **arguments)


def save_random(name: str, file: Path, seed: int = 0, **arguments: int) -> Path:
    """A small net's weights, and for its norms statistics as a training leaves them."""
    torch.manual_seed(seed)
    state = create_timm(name, **arguments).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
    save_file(state, file)
    return file
