"""Building, finding and choosing the library, and training with and without it."""

from __future__ import annotations

import os

import pytest
import torch

import lamina
from lamina import Recipe, Training, load_data
from lamina.errors import LaminaError
from lamina.kernels.library import LIBRARY, Kernels, NoKernels, find_kernels
from lamina.nets import BatchNorm, Conv2d, Flatten, LeakyReLU, Linear, MaxPool2d, Net, Output, ReLU
from support.built_kernels import load

NET = Net(
    *(Conv2d(16, 3), BatchNorm(), LeakyReLU(), Conv2d(24, 3), MaxPool2d(2), BatchNorm(), ReLU()),
    *(Flatten(), Linear(32), BatchNorm(), ReLU(), Output()),
)


def test_the_library_is_built() -> None:
    if not LIBRARY.exists() and "LAMINA_TEST_KERNELS" not in os.environ:
        pytest.skip("make kernels")
    kernels = find_kernels()
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert isinstance(kernels, Kernels if has_avx512 else NoKernels)
    assert str(kernels) == ("avx512" if has_avx512 else "off (this processor has no AVX-512)")


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_KERNELS", "off")
    assert find_kernels() == NoKernels("LAMINA_KERNELS is off")
    monkeypatch.setenv("LAMINA_KERNELS", "avx1024")
    with pytest.raises(
        LaminaError,
        match=(
            r"^LAMINA_KERNELS is 'avx1024'; it must be auto or off\. Unset it to use the C"
            r" functions where the processor has AVX-512\.$"
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
    expected, _ = train_to_losses(precision)
    load()
    monkeypatch.setenv("LAMINA_KERNELS", "auto")
    digests = []
    for _ in range(2):
        losses, digest = train_to_losses(precision)
        digests.append(digest)
        torch.testing.assert_close(
            losses, expected, rtol=0.05 if precision == "bf16" else 0.005, atol=0
        )
    assert len(set(digests)) == 1
