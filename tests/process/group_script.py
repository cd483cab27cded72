"""Trains by several recipes with a group of processes and prints a digest of each, for tests."""

import hashlib
import json
import os
import sys

import numpy as np
import torch
from torch import Tensor, nn

from lamina import Epoch, Net, Recipe, Training, load_data, load_net
from lamina.data import Dataset
from lamina.training import group
from lamina.training.checkpoint import digest_tensors
from lamina.training.prediction import count_batches, predict_logits

# What a recipe can change in a step, each at least once.
RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "adam": ("mlp", {}),
    "sgd": (
        "mlp",
        {
            "optimizer": "sgd",
            "lr": 0.05,
            "weight_decay": 1e-3,
            "flip": "alternating",
            "translate_px": 2,
            "cutout_px": 8,
        },
    ),
    "rmsprop": (
        "mlp",
        {
            "precision": "fp32",
            "optimizer": "rmsprop",
            "schedule": "cosine",
            "gradient_clip": 0.1,
            "flip": "random",
        },
    ),
    "muon": ("cnn-s", {"optimizer": "muon", "lr": 0.02, "normalization": "channel"}),
    "dropout": (
        "cnn",
        {
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "label_smoothing": 0.2,
            "warmup_fraction": 0.5,
        },
    ),
    "growing": ("cnn-s", {"start_size_fraction": 0.5, "epochs": 4}),
    "bf16": ("mlp", {"precision": "bf16", "class_weights": True}),
    "tiny-batches": ("mlp", {"batch_size": 3}),
    "unused": ("sometimes", {"optimizer": "adamw", "weight_decay": 0.5, "batch_size": 8}),
    "fitted": (
        "headed",
        {"head": "fitted", "initial_fraction": 0.3, "optimizer": "adamw", "lr": 0.01},
    ),
}


class Sometimes(nn.Module):
    """A module with one layer that only some lanes use, and one that no lane uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Flatten(), nn.Linear(3072, 50)), nn.Linear(50, 10)
        self.sometimes, self.never = nn.Linear(50, 50), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        is_bright = bool(x[0].mean() > x[-1].mean())
        x = self.first(x)
        logits: Tensor = self.last(x + self.sometimes(x) if is_bright else x)
        return logits


class Headed(nn.Module):
    """A module with a linear head above layers with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.head(self.trunk(x).mean((2, 3)))
        return logits


def make_net(name: str) -> Net | nn.Module:
    """A net of the zoo, or a module with random weights."""
    torch.manual_seed(0)
    match name:
        case "sometimes":
            return Sometimes()
        case "headed":
            return Headed()
    return load_net(name)


def train_all(data: Dataset) -> dict[str, object]:
    """The digests of every recipe, and of the logits of several numbers of images."""
    results: dict[str, object] = {}
    for name, (net, fields) in RECIPES.items():
        recipe = Recipe(**{"epochs": 2, "batch_size": 13, "lanes": 4, **fields})  # type: ignore[arg-type]
        training = Training(make_net(net), data.train.take(range(27)), recipe)
        digests = [
            digest_tensors(training.checkpoint().tensors)
            for event in training
            if isinstance(event, Epoch)
        ]
        if group.find_deviating(" ".join(digests)):
            raise ValueError(f"{name}: the processes have different weights")
        results[name] = digests
    for count in (1, 7, 101, 2_100):  # at most five batches, for two to four processes
        pixels = np.resize(data.train.pixels, (count, *data.train.pixels.shape[1:]))
        part = group.deal(count_batches(pixels), group.size(), group.rank())
        logits = predict_logits(training.model, pixels, part=part)
        whole = b"".join(group.gather(logits.tobytes()))
        results[f"logits of {count}"] = hashlib.blake2b(whole).hexdigest()
    return results


def main() -> None:
    """Print what groups of 4, 3 and 1 processes find, as JSON; the last is without a group."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    data = load_data("shapes")
    for size in (4, 3):
        if rank >= size:
            return
        os.environ["WORLD_SIZE"] = str(size)  # as torchrun would have set it for so many
        with group.join_group():
            results = train_all(data)
            if group.size() != size:
                raise ValueError(f"expected {size} processes, but {group.size()} joined")
            if group.is_leader():
                sys.stdout.write(json.dumps(results) + "\n")
    if rank == 0:
        sys.stdout.write(json.dumps(train_all(data)) + "\n")


if __name__ == "__main__":
    main()
