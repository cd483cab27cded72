"""``/v1/similar``: the training images whose features are most similar to an image's features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lamina.data import Images
from lamina.data.load import find_prepared
from lamina.deploy.serve.explanation import encode_png
from lamina.errors import LaminaError
from lamina.runs.run import Run
from lamina.training.features import features
from lamina.training.folding import fold_model
from lamina.training.model import Model

# Time limit for the features of the training images, computed once per run while other requests wait. If it is too
# short, a random part is searched: with one thread of an EPYC and `cnn-s`, about 10,000 images of 32 px.
SECONDS = 5.0
IMAGES_AT_ONCE = 50  # reached from one by doubling: a large net may take seconds for one image
SHOWN = 6


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Training images with their features, the input of the model's last layer, normalized to length 1."""

    model: Model
    images: Images
    rows: list[int]
    features: Float[Tensor, "n d"]

    def find(self, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
        """The images with the largest cosine similarity of the features."""
        own = functional.normalize(features(self.model, pixels))[0]
        # Training images whose features overflow are similar to none.
        cosines = (self.features @ own).nan_to_num(-1)
        nearest = cosines.topk(min(SHOWN, len(cosines))).indices.tolist()
        images, found = self.images, []
        for place in nearest:
            row = self.rows[place]
            target = images.kind.format(images.targets[row], images.target_names)
            image = encode_png(np.asarray(images.pixels[row]))
            similarity = round(float(cosines[place]), 4)
            found.append({"id": row, "target": target, "similarity": similarity, "image": image})
        return {"searched": len(self.rows), "images": found}


def open_training_images(run: Run, model: Model) -> TrainingImages | str:
    """Training images of a run with their features, or why they are not available; decodes and writes nothing."""
    origin = run.record.data
    try:
        dataset = find_prepared(origin.source, origin.preparation) if origin.source else None
    except (LaminaError, OSError):  # this user may lack the permission
        dataset = None
    if dataset is None:
        return "The training images are not in this machine's cache. Load them with lamina data on this machine."
    if dataset.fingerprint != origin.fingerprint:
        return "The training images have changed since the model was trained. Train a new model to search them."
    train, folded = dataset.train, fold_model(model)
    order = np.random.default_rng(0).permutation(len(train))
    parts: list[Float[Tensor, "n d"]] = []
    until, start, size = time.monotonic() + SECONDS, 0, 1
    while start < len(order) and time.monotonic() < until:
        parts.append(functional.normalize(features(folded, train.pixels[order[start : start + size]])))
        start, size = start + size, min(2 * size, IMAGES_AT_ONCE)
    found = torch.cat(parts)
    return TrainingImages(folded, train, order[: len(found)].tolist(), found)
