"""Trains ResNet-18 from random weights on a folder with fastai's defaults, for a given time."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

# they add methods to Learner
from fastai.callback import progress, schedule  # noqa: F401
from fastai.data.transforms import get_image_files
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from torchvision.models import resnet18

folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
began = time.perf_counter()
set_seed(seed)
loaders = ImageDataLoaders.from_folder(
    folder / "train", valid_pct=0.1, seed=seed, num_workers=0, bs=64
)
test = loaders.test_dl(get_image_files(folder / "test"), with_labels=True)


def train(epochs: int) -> float:
    """Train, with a tenth of train for validation, and return the test accuracy."""
    learner = vision_learner(loaders, resnet18, pretrained=False, metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs)
        return float(learner.validate(dl=test)[1])


tried = time.perf_counter()
train(1)  # includes the evaluation of the test images, as a margin for the slower start
epoch_seconds = time.perf_counter() - tried
epochs = max(1, int((seconds - (time.perf_counter() - began)) / epoch_seconds))
print(json.dumps({"epochs": epochs, "accuracy": train(epochs)}))
