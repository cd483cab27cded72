"""Building, finding and choosing the library, and training with and without it."""

from __future__ import annotations

import os

import pytest
import torch

import lamina
from lamina import Recipe, Training, load_data
from lamina.errors import LaminaError
from lamina.kernels.library import LEVELS, Kernels, NoKernels, find_kernels, load_kernels
from lamina.nets import BatchNorm, Conv2d, Flatten, LeakyReLU, Linear, MaxPool2d, Net, Output, ReLU

NET = Net(
    *(Conv2d(16, 3), BatchNorm(), LeakyReLU(), Conv2d(24, 3), MaxPool2d(2), BatchNorm(), ReLU()),
    *(Flatten(), Linear(32), BatchNorm(), ReLU(), Output()),
)


def test_the_library_is_built() -> None:
    kernels = find_kernels()
    if isinstance(kernels, NoKernels) and "LAMINA_TEST_KERNELS" not in os.environ:
        pytest.skip(kernels.reason)
    assert isinstance(kernels, Kernels) and kernels.level in LEVELS


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_KERNELS", "off")
    assert find_kernels() == NoKernels("LAMINA_KERNELS is off")
    monkeypatch.setenv("LAMINA_KERNELS", "avx1024")
    with pytest.raises(
        LaminaError,
        match=(
            r"^LAMINA_KERNELS is 'avx1024'; it must be auto, off, baseline, avx2 or avx512\. Unset"
            r" it to use the "
            r"widest instruction set of this processor\.$"
        ),
    ):
        find_kernels()


def train_to_losses(precision: str) -> tuple[list[float], str]:
    images = load_data("shapes").train.take(range(150))
    recipe = Recipe(epochs=2, batch_size=50, precision=precision)
    training = Training(NET, images, recipe)
    losses = [event.train_loss for event in training if isinstance(event, lamina.Epoch)]
    return losses, training.digest()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_epochs_have_torchs_losses_and_the_same_bits_each_time(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setenv("LAMINA_KERNELS", "off")
    expected, digest_without = train_to_losses(precision)
    if isinstance(kernels := load_kernels("avx512"), NoKernels):
        pytest.skip(kernels.reason)
    monkeypatch.setenv("LAMINA_KERNELS", "avx2")  # which only gathers, with torch's bits
    assert train_to_losses(precision)[1] == digest_without
    monkeypatch.setenv("LAMINA_KERNELS", "avx512")
    digests = []
    for _ in range(2):
        losses, digest = train_to_losses(precision)
        digests.append(digest)
        torch.testing.assert_close(
            losses, expected, rtol=0.05 if precision == "bf16" else 0.005, atol=0
        )
    assert len(set(digests)) == 1
