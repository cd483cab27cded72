"""The images that are least like any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from lamina.cli.terminal import Terminal
from lamina.data import Images


class Sight(NamedTuple):
    """An image, by its row in its split."""

    images: Images
    row: int

    @property
    def name(self) -> str:
        """Its file name."""
        return self.images.names[self.row]

    def to_json(self) -> dict[str, object]:
        """Its file name and split."""
        return {"picture": self.name, "split": self.images.split}


def list_sights(splits: Iterable[Images]) -> list[Sight]:
    """All images of some splits."""
    return [Sight(images, row) for images in splits for row in range(len(images))]


def show_outliers(
    sights: Sequence[Sight], isolation: Float32[np.ndarray, " n"], top: int, terminal: Terminal
) -> list[dict[str, object]]:
    """Print the most isolated images, and give them as JSON values."""
    outliers = np.argsort(-isolation, kind="stable")[:top].tolist()
    rows = [(sights[row].name, sights[row].images.split, f"{isolation[row]:.3f}") for row in outliers]
    terminal.tabulate(("image", "split", "isolation"), rows, texts=2)
    return [sights[row].to_json() | {"isolation": round(float(isolation[row]), 4)} for row in outliers]
