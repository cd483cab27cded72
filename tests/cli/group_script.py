"""Trains by several recipes with the group that torchrun makes, and prints a digest for each; a script for tests."""

import json
import os
import sys

import timm
import torch

from lamina import Epoch, Net, Recipe, Training, load_data, load_net
from lamina.data import draw_shapes
from lamina.evaluation.evaluating import evaluate
from lamina.training.group import ALONE, Group, join_group
from lamina.training.tensors import digest_tensors

# What a recipe can change in a step, each at least once.
RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "adam": ("mlp", {}),
    "adamw": ("mlp", {"optimizer": "adamw", "weight_decay": 0.1}),
    "rmsprop": ("mlp", {"optimizer": "rmsprop"}),
    "sgd": ("mlp", {"optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-3}),
    "muon": ("mlp", {"optimizer": "muon", "lr": 0.02}),
    "norms": ("cnn-s", {"optimizer": "sgd", "lr": 0.05}),
    "norms-muon": ("cnn-s", {"optimizer": "muon", "lr": 0.02, "normalization": "channel"}),
    "dropout": ("cnn", {}),
    "average": ("cnn-s", {"ema_decay": 0.9}),
    "flip": ("mlp", {"flip": "alternating"}),
    "shift": ("mlp", {"translate_px": 2, "flip": "random"}),
    "squares": ("mlp", {"cutout_px": 8}),
    "crops": ("mlp", {"crop_from_fraction": 0.3, "jitter_fraction": 0.3}),
    "growing": ("cnn-s", {"grow_from_fraction": 0.5, "epochs": 4}),
    "bf16": ("mlp", {"precision": "bf16"}),
    "balance": ("mlp", {"balance": True}),
    "clipping": ("mlp", {"gradient_clip": 0.1}),
    "smoothing": ("mlp", {"label_smoothing": 0.1, "schedule": "one-cycle"}),
    "tiny-batches": ("mlp", {"batch_size": 3}),
    "unused": ("sometimes", {"optimizer": "adamw", "weight_decay": 0.5, "batch_size": 8}),
    "freeze": ("timm", {"freeze": 1, "optimizer": "adamw", "lr": 0.01}),
    "warmup": ("cnn", {"optimizer": "adamw", "label_smoothing": 0.2, "warmup_fraction": 0.5}),
}


class Sometimes(torch.nn.Module):
    """A module that passes some lanes through a layer that others leave out, and none through a third."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.last = torch.nn.Flatten(), torch.nn.Linear(3072, 10)
        self.sometimes, self.never = torch.nn.Linear(3072, 3072), torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x = self.flatten(x)
        logits: torch.Tensor = self.last(x + self.sometimes(x) if x[0].mean() > x[-1].mean() else x)
        return logits


def make_net(name: str) -> Net | torch.nn.Module:
    """A net of the zoo, one with layers that are not always used, or timm's smallest with random weights."""
    if name == "sometimes":
        torch.manual_seed(0)
        return Sometimes()
    if name != "timm":
        return load_net(name)
    torch.manual_seed(0)
    module: torch.nn.Module = timm.create_model("test_efficientnet", num_classes=10)
    return module


def train_all(group: Group) -> dict[str, object]:
    """The digests of every recipe, and reports on several numbers of images."""
    data = load_data("shapes")
    found: dict[str, object] = {}
    for name, (net, fields) in RECIPES.items():
        recipe = Recipe(**{"epochs": 2, "batch_size": 13, "lanes": 4, **fields})  # type: ignore[arg-type]
        training = Training(make_net(net), data.train.take(range(27)), recipe, device="cpu", group=group)
        digests = [digest_tensors(training.checkpoint().tensors) for event in training if isinstance(event, Epoch)]
        if group.find_deviating(" ".join(digests)):
            raise ValueError(f"{name}: the processes have different weights")
        found[name] = digests
    images = draw_shapes("shapes", "test", count=10_000, seed=1)
    for count in (1, 7, 101, 10_000):
        report = evaluate(training.model, images.take(range(count)), group=group).to_json()
        del report["seconds"]
        found[f"report of {count}"] = report
    return found


def main() -> None:
    """Print what groups of 1 to 4 of torchrun's four processes find, a JSON object each; the first is alone."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for size in range(4, 1, -1):
        if rank >= size:
            return
        os.environ["WORLD_SIZE"] = str(size)  # as torchrun would have set it for so many
        with join_group() as group:
            found = train_all(group)
            if group.size != size:
                raise ValueError(f"expected {size} processes, but {group.size} joined")
            if group.is_leader:
                sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.write(json.dumps(train_all(ALONE)) + "\n")


if __name__ == "__main__":
    main()
