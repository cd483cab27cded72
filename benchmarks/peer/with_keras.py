"""Trains the article's nets with Keras: arrays in memory; KERAS_BACKEND selects the backend."""

from __future__ import annotations

import time
from typing import Any

import keras
from assignment import read_assignment, read_images, report
from keras import layers


class EpochClock(keras.callbacks.Callback):
    """Times each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def build_net(name: str) -> keras.Sequential:
    """Build ``mlp`` or ``cnn``, from channels-last images to ten logits.

    Keras's "same" convolution with stride 2 pads only at the bottom and right; torch pads on all
    sides. The arithmetic is the same, with windows moved by a pixel.
    """
    if name == "mlp":
        body = [layers.Flatten(), layers.Dense(100, activation="relu")]
    else:
        body = [
            *_convolve(32, strides=1),
            *_convolve(32, strides=2),
            *_convolve(64, strides=1),
            *_convolve(64, strides=2),
            layers.Flatten(),
            layers.Dense(128),
            *_norm_and_activate(),
            layers.Dropout(0.5),
        ]
    return keras.Sequential([layers.Input((32, 32, 3)), *body, layers.Dense(10, dtype="float32")])


def _convolve(filters: int, *, strides: int) -> list[layers.Layer]:
    return [layers.Conv2D(filters, 3, strides=strides, padding="same"), *_norm_and_activate()]


def _norm_and_activate() -> list[layers.Layer]:
    # Keras's momentum of 0.9 is torch's 0.1.
    return [
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
        layers.LeakyReLU(negative_slope=0.01),
    ]


assignment = read_assignment()
keras.utils.set_random_seed(assignment.seed)
if assignment.precision == "bf16":
    keras.config.set_dtype_policy("mixed_bfloat16")
images = read_images(assignment.images, channels_first=False)
net = build_net(assignment.net)
net.compile(
    optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    # Saves a tenth of the MLP's time on JAX; the torch backend does not support it.
    steps_per_execution=10 if keras.backend.backend() == "jax" else 1,
)
clock = EpochClock()
net.fit(
    images.train,
    images.train_targets,
    batch_size=assignment.batch_size,
    epochs=assignment.epochs,
    callbacks=[clock],
    verbose=0,
)
report(clock.seconds, net.evaluate(images.test, images.test_targets, batch_size=500, verbose=0)[1])
