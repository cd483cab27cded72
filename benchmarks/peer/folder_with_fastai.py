"""A folder of pictures by fastai's defaults: ResNet-18 from scratch, as many epochs as the seconds allow."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from torchvision.models import resnet18

folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
began = time.perf_counter()
set_seed(seed)
loaders = ImageDataLoaders.from_folder(folder, train="train", valid="test", num_workers=0, bs=64)
learner = vision_learner(loaders, resnet18, pretrained=False, metrics=accuracy)
with learner.no_bar(), learner.no_logging():
    tried = time.perf_counter()
    learner.fit_one_cycle(1)
    epoch_seconds = time.perf_counter() - tried
    # The validation pictures are evaluated after every epoch, as fastai does; so the first epoch's time counts them.
    left = seconds - (time.perf_counter() - began)
    epochs = max(1, int(left / epoch_seconds))
    learner = vision_learner(loaders, resnet18, pretrained=False, metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs)
        print(json.dumps({"epochs": epochs, "accuracy": float(learner.validate()[1])}))
