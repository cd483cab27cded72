"""Trains the article's nets with Lightning: tensors in memory, without validation or logs."""

from __future__ import annotations

import logging
import time
import warnings

import lightning
import torch
from assignment import read_assignment, read_images, report
from torch import Tensor
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torch_nets import build_net


class Classifier(lightning.LightningModule):
    """A net with its loss and optimizer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = build_net(name)
        self.correct = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, targets = batch
        return functional.cross_entropy(self.net(images), targets)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, targets = batch
        self.correct += int((self.net(images).argmax(1) == targets).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class EpochClock(lightning.Callback):
    """Times each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        self.seconds.append(time.perf_counter() - self._start)


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
assignment = read_assignment()
lightning.seed_everything(assignment.seed, verbose=False)
images = read_images(assignment.images, channels_first=True)
train = TensorDataset(torch.from_numpy(images.train), torch.from_numpy(images.train_targets))
test = TensorDataset(torch.from_numpy(images.test), torch.from_numpy(images.test_targets))
classifier, clock = Classifier(assignment.net), EpochClock()
trainer = lightning.Trainer(
    accelerator="cpu",
    precision="bf16-mixed" if assignment.precision == "bf16" else "32-true",
    max_epochs=assignment.epochs,
    callbacks=[clock],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
# Fetching a whole batch at once is a sixth faster for the MLP than fetching single images.
batches = BatchSampler(RandomSampler(train), assignment.batch_size, drop_last=False)
trainer.fit(classifier, DataLoader(train, sampler=batches, batch_size=None))
trainer.test(classifier, DataLoader(test, batch_size=500), verbose=False)
report(clock.seconds, classifier.correct / len(test))
