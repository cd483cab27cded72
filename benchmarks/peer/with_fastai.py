"""Trains the article's nets with fastai: tensors in memory, torch's Adam, validation not timed."""

from __future__ import annotations

import time
from functools import partial

import torch
from assignment import read_assignment, read_images, report
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from torch.utils.data import TensorDataset
from torch_nets import build_net


class EpochClock(Callback):
    """Times each epoch without its validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.start = 0.0

    def before_train(self) -> None:
        self.start = time.perf_counter()

    def after_train(self) -> None:
        self.seconds.append(time.perf_counter() - self.start)


assignment = read_assignment()
set_seed(assignment.seed)
images = read_images(assignment.images, channels_first=True)
train = TensorDataset(torch.from_numpy(images.train), torch.from_numpy(images.train_targets))
test = TensorDataset(torch.from_numpy(images.test), torch.from_numpy(images.test_targets))
loaders = DataLoaders(
    DataLoader(train, bs=assignment.batch_size, shuffle=True, num_workers=0),
    DataLoader(test, bs=500, num_workers=0),
    device=torch.device("cpu"),
)
clock = EpochClock()
learner = Learner(
    loaders,
    build_net(assignment.net),
    loss_func=torch.nn.functional.cross_entropy,
    opt_func=partial(OptimWrapper, opt=torch.optim.Adam),
    metrics=accuracy,
    cbs=clock,
)
learner.remove_cb(ProgressCallback)
with learner.no_logging():
    learner.fit(assignment.epochs, lr=1e-3)
    score = learner.validate()[1]
report(clock.seconds, score)
