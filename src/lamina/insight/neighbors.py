"""The nearest images by their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lamina.data import Images
from lamina.data.images import Progress
from lamina.markup import Table
from lamina.shown import Shown
from lamina.training.model import Model
from lamina.training.prediction import predict_with_features
from lamina.training.task import Features, Pixels

SHOWN = 6  # of the similar images
# images whose neighbors are similar at once: memory grows with this times the number of images
BLOCK = 1000


@dataclass(frozen=True, eq=False)
class SearchedImages:
    """Rows of ``images`` with their features: the last layer's input, with length 1."""

    images: Images
    rows: Int64[np.ndarray, " n"] = field(repr=False)
    features: Features = field(repr=False)


class Neighbor(NamedTuple):
    """An image that is similar to another image."""

    row: int
    image: str
    target: str
    similarity: float


@dataclass(frozen=True, eq=False)
class SimilarImages(Shown):
    """The images that are most similar to an image, by the features of a model.

    Attributes:
        image: the name of the image.
        pixels: its pixels (H, W, C), uint8, as the model sees them.
        neighbors: the most similar images, with the cosine similarity of their features: 1 for
            equal images.
        searched: the images that were searched; the rows of ``neighbors`` refer to them.
    """

    texts: ClassVar[int] = 2
    image: str
    pixels: UInt8[np.ndarray, "h w c"] = field(repr=False)
    neighbors: tuple[Neighbor, ...]
    searched: Images = field(repr=False)

    def headline(self) -> str:
        """The name of the image, and the split that was searched for similar images."""
        return f"{self.image}: the most similar {self.searched.split} images"

    def table(self) -> Table:
        """The column heads, and a row for each similar image; the first two columns are text."""
        rows = [(*near[1:3], f"{near.similarity:.3f}") for near in self.neighbors]
        return Neighbor._fields[1:], rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: the ``image``, and the ``similar`` images with target and similarity."""
        return {"image": self.image, "similar": [near._asdict() for near in self.neighbors]}


def embed(model: Model, images: Images, progress: Progress | None = None) -> SearchedImages:
    """The images with their features, to search them for similar images."""
    _, features = predict_with_features(model, images.pixels, progress)
    return SearchedImages(images, np.arange(len(images)), normalize(features))


def find_similar(
    model: Model,
    pixels: Pixels,
    names: Sequence[str],
    searched: SearchedImages,
    most: int = SHOWN,
) -> tuple[SimilarImages, ...]:
    """For each image, at most ``most`` similar images, by the cosines of the features."""
    if not len(pixels):
        return ()
    images = searched.images
    features = normalize(predict_with_features(model, pixels)[1])
    cosines, places = find_neighbors(features, searched.features, most)
    similar = []
    for number, name in enumerate(names):
        neighbors = []
        for place, cosine in zip(places[number].tolist(), cosines[number].tolist(), strict=True):
            row = int(searched.rows[place])
            target = images.kind.format(images.targets[row], images.target_names)
            neighbors.append(Neighbor(row, images.names[row], target, round(cosine, 4)))
        similar.append(SimilarImages(name, pixels[number], tuple(neighbors), images))
    return tuple(similar)


def find_neighbors(
    signatures: Features, others: Float[Tensor, "m d"], count: int
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """The cosines of each signature with the ``count`` nearest of ``others``, and their rows."""
    count = min(count, len(others))
    likeness = torch.empty(len(signatures), count)
    rows = torch.empty(len(signatures), count, dtype=torch.int64)
    for start in range(0, len(signatures), BLOCK):
        block = slice(start, start + BLOCK)
        likeness[block], rows[block] = (signatures[block] @ others.T).topk(count, dim=1)
    return likeness, rows


def normalize(features: Features) -> Features:
    """The features with length 1, whose products are cosines; zeros if they overflow."""
    return functional.normalize(features.float(), dim=1).nan_to_num(0)
