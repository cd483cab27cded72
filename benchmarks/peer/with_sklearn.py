"""Trains the article's MLP with scikit-learn: each ``partial_fit`` is one shuffled epoch."""

from __future__ import annotations

import time

import numpy as np
from assignment import read_assignment, read_images, report
from sklearn.neural_network import MLPClassifier

assignment = read_assignment()
images = read_images(assignment.images, channels_first=True)
train, test = (pixels.reshape(len(pixels), -1) for pixels in (images.train, images.test))
net = MLPClassifier(
    hidden_layer_sizes=(100,),
    activation="relu",
    solver="adam",
    alpha=0.0,
    batch_size=assignment.batch_size,
    learning_rate_init=1e-3,
    # A generator: with a number, every pass would have the same order.
    random_state=np.random.RandomState(assignment.seed),
)
seconds = []
for _ in range(assignment.epochs):
    start = time.perf_counter()
    net.partial_fit(train, images.train_targets, classes=np.arange(10))
    seconds.append(time.perf_counter() - start)
report(seconds, net.score(test, images.test_targets))
