"""What each peer is asked to do, and how it answers; needs NumPy alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Assignment:
    """One training: which net, on which images, for how long.

    Attributes:
        net: ``mlp`` or ``cnn``.
        images: file of arrays ``train_pixels``, ``train_targets``, ``test_pixels``, ``test_targets``.
        epochs: passes over the training images.
        batch_size: images a step.
        seed: of all random choices.
        precision: ``fp32``, or ``bf16`` for the peer's own mixed precision.
    """

    net: str
    images: Path
    epochs: int
    batch_size: int
    seed: int
    precision: str

    def words(self) -> list[str]:
        """The assignment as words of a command line."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(self).items()]


@dataclass(frozen=True)
class Images:
    """Both splits in memory: float32 of -1 … 1, and int64 classes."""

    train: np.ndarray
    train_targets: np.ndarray
    test: np.ndarray
    test_targets: np.ndarray


def read_assignment() -> Assignment:
    """The assignment on this process's command line."""
    parser = argparse.ArgumentParser()
    for name, kind in (("net", str), ("images", Path), ("epochs", int), ("batch-size", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    return Assignment(**vars(parser.parse_args()))


def read_images(path: Path, *, channels_first: bool) -> Images:
    """The images as the article scales them, (N, C, H, W) or (N, H, W, C), contiguous."""

    def scale(pixels: np.ndarray) -> np.ndarray:
        ordered = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if channels_first else pixels
        return ordered.astype(np.float32) / np.float32(127.5) - np.float32(1)

    with np.load(path) as arrays:
        return Images(
            scale(arrays["train_pixels"]),
            arrays["train_targets"],
            scale(arrays["test_pixels"]),
            arrays["test_targets"],
        )


def report(epoch_seconds: Sequence[float], test_accuracy: float) -> None:
    """Answer with the seconds of each epoch and the accuracy, a fraction, after the last."""
    print(json.dumps({"epoch_seconds": list(epoch_seconds), "test_accuracy": float(test_accuracy)}), flush=True)
