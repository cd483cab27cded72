"""Each library's task and the format of its result; needs only NumPy."""

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
    """One training of a net.

    Attributes:
        net: ``mlp`` or ``cnn``.
        images: file with arrays ``train_pixels``, ``train_targets``, ``test_pixels``,
            ``test_targets``.
        epochs: number of epochs.
        batch_size: images per step.
        seed: seed of all random numbers.
        precision: ``fp32``, or ``bf16`` for the library's own mixed precision.
    """

    net: str
    images: Path
    epochs: int
    batch_size: int
    seed: int
    precision: str

    def words(self) -> list[str]:
        """The task as command-line arguments."""
        return [
            f"--{name.replace('_', '-')}={value}"
            for name, value in dataclasses.asdict(self).items()
        ]


@dataclass(frozen=True)
class Images:
    """Both splits in memory: float32 pixels from -1 to 1, and int64 classes."""

    train: np.ndarray
    train_targets: np.ndarray
    test: np.ndarray
    test_targets: np.ndarray


def read_assignment() -> Assignment:
    """Parse the task from this process's command line."""
    parser = argparse.ArgumentParser()
    for name, kind in (
        ("net", str),
        ("images", Path),
        ("epochs", int),
        ("batch-size", int),
        ("seed", int),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    return Assignment(**vars(parser.parse_args()))


def read_images(path: Path, *, channels_first: bool) -> Images:
    """Read images, scaled as in the article, (N, C, H, W) or (N, H, W, C), contiguous."""

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
    """Print the seconds of each epoch and the final test accuracy, a fraction, as JSON."""
    print(
        json.dumps({"epoch_seconds": list(epoch_seconds), "test_accuracy": float(test_accuracy)}),
        flush=True,
    )
