"""The article's two nets in torch, for libraries that train torch modules."""

from __future__ import annotations

from torch import nn


def build_net(name: str) -> nn.Sequential:
    """Build ``mlp`` or ``cnn``, from (N, 3, 32, 32) to ten logits."""
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 32 * 32, 100), nn.ReLU(), nn.Linear(100, 10)
        )
    return nn.Sequential(
        *_convolve(3, 32, stride=1),
        *_convolve(32, 32, stride=2),
        *_convolve(32, 64, stride=1),
        *_convolve(64, 64, stride=2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.BatchNorm1d(128),
        nn.LeakyReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def _convolve(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
    return [convolution, nn.BatchNorm2d(channels_out), nn.LeakyReLU()]
