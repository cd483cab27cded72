"""Trains the article's nets with skorch: arrays in memory, ``fit``, no validation."""

from __future__ import annotations

import torch
from assignment import read_assignment, read_images, report
from skorch import NeuralNetClassifier
from torch_nets import build_net

assignment = read_assignment()
torch.manual_seed(assignment.seed)
images = read_images(assignment.images, channels_first=True)
net = NeuralNetClassifier(
    build_net(assignment.net),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=1e-3,
    max_epochs=assignment.epochs,
    batch_size=assignment.batch_size,
    iterator_train__shuffle=True,
    train_split=None,
    verbose=0,
)
net.fit(images.train, images.train_targets)
report(net.history[:, "dur"], net.score(images.test, images.test_targets))
