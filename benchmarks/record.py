"""The published 94 % recipe for CIFAR-10 in plain torch on the CPU, to compare with lamina's nets.

K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), in its later form
with the Muon optimizer (the public airbench repository). The script only loads the images with
lamina; net, optimizer, augmentation, loop and evaluation are below, in the order of the paper. The
original uses half precision on a GPU; this script uses bfloat16 autocast on channels-last arrays.
It fits the whitening to 5,000 images spread evenly over the set, not to the first 5,000, because a
set may be sorted by class. Everything else is as published: batches of 2,000, 8 epochs, without the
last images of an epoch that do not fill a batch.

Training seconds include the whitening, the epochs and their augmentation, but not the evaluation.

    python benchmarks/record.py --seeds 3 --json record.json
    python benchmarks/record.py --images 10000 --epochs 2      # a quick trial
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import tyro
from article import test_split
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from lamina import load_data
from lamina.errors import LaminaError
from lamina.evaluation.intervals import mean_interval

BATCH_SIZE = 2000
EPOCHS = 8
WHITENING_EPOCHS = 3
WIDTHS = (64, 256, 256)
MEAN = torch.tensor((0.4914, 0.4822, 0.4465)) * 255
STD = torch.tensor((0.2470, 0.2435, 0.2616)) * 255
SHIFT_PX = 2
BIAS_LR, HEAD_LR, MUON_LR = 0.053, 0.67, 0.24
WEIGHT_DECAY = 2e-6 * BATCH_SIZE
LABEL_SMOOTHING = 0.2


class BatchNorm(nn.BatchNorm2d):
    """Batch norm without scale; its running statistics keep 0.6 of their value at each step."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=1 - 0.6)
        self.weight.requires_grad_(False)


def convolve(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3×3 convolution without bias, whose first filters are the identity (Dirac)."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:channels_in])
    return convolution


def block(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        convolve(channels_in, channels_out),
        nn.MaxPool2d(2),
        BatchNorm(channels_out),
        nn.GELU(),
        convolve(channels_out, channels_out),
        BatchNorm(channels_out),
        nn.GELU(),
    ]


class RecordNet(nn.Module):
    """Fixed 2×2 whitening with a trained bias, three blocks, global max pooling, a linear head."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        filters = fit_whitening(images)
        self.whitening = nn.Conv2d(3, len(filters), kernel_size=2)
        self.whitening.weight = nn.Parameter(filters, requires_grad=False)
        widths = (len(filters), *WIDTHS)
        blocks = (
            layer
            for widths_in_out in zip(widths, WIDTHS, strict=False)
            for layer in block(*widths_in_out)
        )
        self.body = nn.Sequential(nn.GELU(), *blocks, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.whitening(images))) / self.head.in_features


def fit_whitening(images: Tensor) -> Tensor:
    """Eigenvectors of the 2×2 patches' covariance over their standard deviation, and negatives."""
    patches = functional.unfold(images, kernel_size=2).transpose(1, 2).reshape(-1, 12)
    eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
    return torch.cat((filters, -filters))


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum of 0.6; weights are rescaled to a fixed norm each step."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                gradient, state = weight.grad, self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradient)
                momentum = state["momentum"].mul_(0.6).add_(gradient)
                update = orthogonalize(gradient.add(momentum, alpha=0.6).flatten(start_dim=1))
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.add_(update.view(weight.shape), alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Three Newton-Schulz steps in bfloat16: all singular values approach 1."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    x = x.T if is_tall else x
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if is_tall else x


def normalize(pixels: Tensor) -> Tensor:
    """Convert pixels (N, H, W, C) to normalized float32 (N, C, H, W), channels-last in memory."""
    return ((pixels - MEAN) / STD).permute(0, 3, 1, 2)


def pad(pixels: Tensor, by_px: int) -> Tensor:
    """Pad images (N, H, W, C) by reflection."""
    side = pixels.shape[1]
    places = torch.arange(-by_px, side + by_px).abs()
    places = side - 1 - (side - 1 - places).abs()
    return pixels[:, places][:, :, places]


class Augmentation:
    """Mirrors images in every other epoch and translates them by up to two pixels.

    The first epoch mirrors a random half of the images.
    """

    def __init__(self, pixels: Tensor) -> None:
        mirrored = torch.rand(len(pixels)) < 0.5
        self._padded = pad(
            torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(2), pixels), SHIFT_PX
        )
        self._pixels = torch.empty_like(pixels)

    def draw(self, epoch: int) -> Tensor:
        """Augment all images for ``epoch``, counted from 0."""
        side = self._pixels.shape[1]
        shifts = torch.randint(0, 2 * SHIFT_PX + 1, (len(self._pixels), 2))
        for down in range(2 * SHIFT_PX + 1):
            for right in range(2 * SHIFT_PX + 1):
                chosen = ((shifts[:, 0] == down) & (shifts[:, 1] == right)).nonzero().squeeze(1)
                shifted = self._padded.index_select(0, chosen)[
                    :, down : down + side, right : right + side
                ]
                self._pixels.index_copy_(0, chosen, shifted)
        return self._pixels.flip(2) if epoch % 2 else self._pixels


def draw_batches(
    augmentation: Augmentation, targets: Tensor, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    pixels = augmentation.draw(epoch)
    order = torch.randperm(len(pixels))
    for batch in range(len(pixels) // BATCH_SIZE):
        chosen = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
        yield normalize(pixels[chosen]).bfloat16(), targets[chosen]


def train(pixels: Tensor, targets: Tensor, epochs: int) -> tuple[RecordNet, float]:
    """Train a net; return it with the seconds."""
    start = time.perf_counter()
    net = RecordNet(normalize(pixels[:: max(1, len(pixels) // 5000)])).to(
        memory_format=torch.channels_last
    )
    biases = [module.bias for module in net.modules() if isinstance(module, BatchNorm)]
    convolutions = [weight for weight in net.body.parameters() if weight.ndim == 4]
    groups = [([net.whitening.bias], BIAS_LR), (biases, BIAS_LR), ([net.head.weight], HEAD_LR)]
    sgd = torch.optim.SGD(
        [
            {"params": weights, "lr": lr, "weight_decay": WEIGHT_DECAY / lr}
            for weights, lr in groups
        ],
        momentum=0.85,
        nesterov=True,
        fused=True,
    )
    muon = Muon(convolutions, MUON_LR)
    whitening_group, *other_groups = (*sgd.param_groups, *muon.param_groups)
    peaks = [group["lr"] for group in other_groups]
    augmentation = Augmentation(pixels)
    steps, whitening_steps = (
        count * (len(pixels) // BATCH_SIZE) for count in (epochs, WHITENING_EPOCHS)
    )
    step = 0
    for epoch in range(epochs):
        for images, labels in draw_batches(augmentation, targets, epoch):
            net.whitening.bias.requires_grad_(step < whitening_steps)
            whitening_group["lr"] = BIAS_LR * max(0, 1 - step / whitening_steps)
            for group, peak in zip(other_groups, peaks, strict=True):
                group["lr"] = peak * (1 - step / steps)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(images)
            loss = functional.cross_entropy(
                logits.float(), labels, label_smoothing=LABEL_SMOOTHING, reduction="sum"
            )
            loss.backward()
            sgd.step()
            muon.step()
            net.zero_grad(set_to_none=True)
            step += 1
        accuracy = (logits.argmax(1) == labels).float().mean()
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{epochs}  {seconds:.1f} s  train accuracy of the last batch"
            f" {accuracy:.2%}",
            file=sys.stderr,
        )
    return net, time.perf_counter() - start


@torch.inference_mode()
def test(net: RecordNet, pixels: Tensor, targets: Tensor) -> tuple[float, float]:
    """Accuracy on the image alone and on six views: three positions, each also mirrored."""
    net.eval()
    padded, side = pad(pixels, 1), pixels.shape[1]
    correct = torch.zeros(2)
    for start in range(0, len(pixels), 1000):
        batch = slice(start, start + 1000)
        moved = [padded[batch, shift : shift + side, shift : shift + side] for shift in (0, 2)]
        views = [view for place in (pixels[batch], *moved) for view in (place, place.flip(2))]
        with torch.autocast("cpu", torch.bfloat16):
            logits = torch.stack([net(normalize(view).bfloat16()).float() for view in views])
        weights = torch.tensor([2, 2, 1, 1, 1, 1]).view(-1, 1, 1) / 8
        predicted = torch.stack((logits[0], (logits * weights).sum(0))).argmax(2)
        correct += (predicted == targets[batch]).sum(1)
    plain, six_views = (correct / len(pixels)).tolist()
    return plain, six_views


@dataclasses.dataclass(frozen=True)
class Row:
    """One training with the published recipe."""

    seed: int
    epochs: int
    train_seconds: float
    test_seconds: float
    plain_accuracy: float
    six_view_accuracy: float


def train_and_test(
    train_arrays: tuple[Tensor, Tensor], test_arrays: tuple[Tensor, Tensor], seed: int, epochs: int
) -> Row:
    torch.manual_seed(seed)
    net, train_seconds = train(*train_arrays, epochs)
    start = time.perf_counter()
    plain, six_views = test(net, *test_arrays)
    return Row(seed, epochs, train_seconds, time.perf_counter() - start, plain, six_views)


def main(
    seeds: int = 3,
    first_seed: int = 0,
    epochs: int = EPOCHS,
    images: int | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train with the published recipe and several seeds, and evaluate one view and six.

    Args:
        seeds: number of seeds.
        first_seed: the first seed.
        epochs: number of epochs; the published number is 8.
        images: number of training images, at least 2,000, for a quick trial; by default all.
        json_path: file for the results, one JSON object per line.
    """
    torch.set_flush_denormal(True)
    data = load_data("cifar10")
    test_images = test_split(data)
    count = len(data.train) if images is None else images
    if not BATCH_SIZE <= count <= len(data.train):
        raise SystemExit(
            f"--images is {count}; it must be between {BATCH_SIZE}, one batch, and"
            f" {len(data.train)}. Use --images 10000."
        )
    # Spread evenly, because a set may be sorted by class.
    chosen = torch.arange(count) * len(data.train) // count
    train_arrays = (
        torch.from_numpy(data.train.pixels[chosen]),
        torch.from_numpy(data.train.targets[chosen]),
    )
    test_arrays = torch.from_numpy(test_images.pixels[:]), torch.from_numpy(test_images.targets)
    rows = [
        train_and_test(train_arrays, test_arrays, seed, epochs)
        for seed in range(first_seed, first_seed + seeds)
    ]
    table = Table("what", "mean", "95 % interval", "each seed")
    for what, values in (
        ("test accuracy, one view", [100 * row.plain_accuracy for row in rows]),
        ("test accuracy, six views", [100 * row.six_view_accuracy for row in rows]),
        ("seconds of training", [row.train_seconds for row in rows]),
        ("seconds of evaluation", [row.test_seconds for row in rows]),
    ):
        found = mean_interval(values)
        interval = "–" if found.low is None else f"{found.low:.2f} – {found.high:.2f}"
        table.add_row(
            what, f"{found.mean:.2f}", interval, ", ".join(f"{value:.2f}" for value in values)
        )
    Console().print(table)
    if json_path is not None:
        json_path.write_text(
            "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows), encoding="utf-8"
        )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
