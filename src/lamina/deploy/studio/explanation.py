"""What takes longer about one prediction: its attribution map, and similar training images."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lamina.data import Images, thumbnails
from lamina.errors import NetError
from lamina.insight.explaining import STEPS, compute_map, explain_pixels
from lamina.insight.neighbors import SearchedImages, find_similar, normalize
from lamina.training.model import Model
from lamina.training.prediction import fold_model, predict_with_features

MAP_SECONDS = 40.0  # time limit of a map, estimated from one step; slower nets get no map
# Time limit of measuring its faithfulness, which takes as long as the map; the limit of the worker
# covers both.
FAITHFULNESS_SECONDS = 15.0
# For the features of the training images; if it is too short, a random part is searched: with one
# thread of an EPYC and `cnn-s`, about 10,000 images of 32 px.
SIMILAR_SECONDS = 5.0
IMAGES_AT_ONCE = 50  # reached from one by doubling: a large net may take seconds for one image
SHOWN = 6


def explain_image(model: Model, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
    """Integrated gradients of the most likely class or label, or of the first number."""
    for _ in range(2):  # the first call in a process takes longer
        began = time.monotonic()
        compute_map(model, pixels, target=0, steps=1)
        seconds = STEPS * (time.monotonic() - began)
        if seconds < MAP_SECONDS or seconds > STEPS * MAP_SECONDS / 4:
            break
    if seconds > MAP_SECONDS:
        raise NetError(
            f"A map would take about {seconds:.0f} s on this machine; the limit is"
            f" {MAP_SECONDS:.0f} s.",
            remedy="Use lamina explain, which has no limit.",
        )
    is_measured = seconds < FAITHFULNESS_SECONDS
    explanation = explain_pixels(model, pixels, {"gradients": None}, is_measured=is_measured)
    pictures = explanation.pictures()
    return {
        "target": explanation.target,
        "faithfulness": explanation.to_json()["maps"]["gradients"],
        "image": encode_png(pictures["image"]),
        "map": encode_png(pictures["gradients"]),
    }


def encode_png(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    return encode_image(thumbnails.to_pillow(pixels))


def encode_image(image: Image.Image) -> str:
    return base64.b64encode(thumbnails.encode_png(image)).decode()


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """A model, and training images with its features."""

    model: Model
    searched: SearchedImages

    def find(self, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
        """The images with the largest cosine similarity of the features."""
        (similar,) = find_similar(self.model, pixels, ["image"], self.searched, SHOWN)
        images = [
            {
                "id": neighbor.row,
                "target": neighbor.target,
                "similarity": round(neighbor.similarity, 4),
                "image": encode_png(np.asarray(self.searched.images.pixels[neighbor.row])),
            }
            for neighbor in similar.neighbors
        ]
        return {"searched": len(self.searched.rows), "images": images}


def compute_features(model: Model, train: Images, until: float) -> TrainingImages:
    """The training images with features, or a random part if ``until`` (monotonic) comes first."""
    folded = fold_model(model)
    order = np.random.default_rng(0).permutation(len(train))
    parts: list[Float[Tensor, "n d"]] = []
    start = 0
    size = 1
    while start < len(order) and (not parts or time.monotonic() < until):
        _, part = predict_with_features(folded, train.pixels[order[start : start + size]])
        parts.append(normalize(part))
        start += size
        size = min(2 * size, IMAGES_AT_ONCE)
    features = torch.cat(parts)
    searched = SearchedImages(train, order[: len(features)], features)
    return TrainingImages(folded, searched)
