"""Epochs of a training, as a run stores them."""

from __future__ import annotations


def history(epochs: int, split: str = "val") -> list[dict[str, float | None]]:
    return [
        {
            "epoch": epoch,
            "train_accuracy": 0.3 + 0.03 * epoch,
            f"{split}_accuracy": 0.2 + 0.03 * epoch,
            "train_loss": 2.0 / epoch,
            f"{split}_loss": 2.2 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
