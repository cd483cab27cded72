"""The numerical parity check: compare exported files with the model, at several batch sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8

from lamina.data import Images
from lamina.deploy.exported_model import OPSET
from lamina.deploy.exported_predictor import open_session
from lamina.errors import NetError
from lamina.evaluation.predictions import check_finite, make_prediction
from lamina.targets import REGRESSION
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Task

IMAGES = 256  # at most, evenly spread over the split, in addition to a black and a white image
BATCHES = (1, 2, 7)  # sizes, in turn, to detect a fixed batch size
TOLERANCE = 1e-4  # of a logit, relative to the largest logit, or to 1


@dataclass(frozen=True)
class ParityCheck:
    """The result of a numerical parity check."""

    opset: int
    sha256: str
    images: int  # including the black and the white image
    split: str
    batches: tuple[int, ...]
    largest_difference: float  # of a logit
    limit: float  # of the difference of a logit
    largest_probability_difference: float
    same_predictions: int
    # images with a different prediction, because the best two are within the limit
    close_calls: int

    def __str__(self) -> str:
        others = f", {self.close_calls} too close to call" if self.close_calls else ""
        return (
            f"matches the run on {self.images - 2:,} {self.split} images, a black image and a white"
            f" image, in batches of {', '.join(map(str, self.batches))}: logits differ by at most"
            f" {self.largest_difference:.1e} (limit {self.limit:.1e}), {self.same_predictions:,} of"
            f" {self.images:,} predictions are equal{others}"
        )


def check_parity(content: bytes, model: Model, images: Images | None) -> ParityCheck:
    """Compare an ONNX file with the model on up to 256 images or noise; raises ``NetError``."""
    some = _draw_noise(model) if images is None else images.take_evenly(IMAGES).pixels
    plain = np.stack([np.full(some.shape[1:], value, np.uint8) for value in (0, 255)])
    count = len(some) + len(plain)
    # If there are few images, they are repeated until each batch size occurs.
    pixels = np.resize(np.concatenate([some, plain]), (max(count, sum(BATCHES)), *plain.shape[1:]))
    expected = predict_logits(model, pixels)
    check_finite(expected)
    with torch.inference_mode():
        outputs = model.task.probabilities(torch.from_numpy(expected))
        probabilities = model.task.expand(outputs).numpy()
    exported, logits = _predict_in_batches(content, pixels)
    if logits.shape != expected.shape or exported.shape != probabilities.shape:
        raise NetError(
            f"The exported file returns logits of shape {logits.shape} for {len(pixels)} images;"
            f" expected {expected.shape}. The file was not written."
        )
    limit = _measure_limit(expected)
    scale = _measure_limit(probabilities)
    difference = float(np.abs(logits - expected).max())
    apart = float(np.abs(exported - probabilities).max())
    if model.task.kind is REGRESSION:
        same = (np.abs(logits - expected) <= limit).all(axis=1)
    else:
        same = _predict(model.task, exported) == _predict(model.task, probabilities)
    if not (difference <= limit and apart <= scale):
        raise NetError(
            f"The exported file does not match the run: logits differ by up to {difference:.2g}"
            f" (limit {limit:.2g}), probabilities by {apart:.2g} (limit {scale:.2g}), and"
            f" {int((~same).sum()):,} of {len(pixels):,} predictions differ. The file was not"
            " written."
        )
    return ParityCheck(
        opset=OPSET,
        sha256=hashlib.sha256(content).hexdigest(),
        images=count,
        split="synthetic" if images is None else images.split,
        batches=BATCHES,
        largest_difference=difference,
        limit=limit,
        largest_probability_difference=apart,
        same_predictions=int(same[:count].sum()),
        close_calls=int((~same[:count]).sum()),
    )


def _measure_limit(values: Float32[np.ndarray, "n m"]) -> float:
    return TOLERANCE * max(1.0, float(np.abs(values).max()))


def _draw_noise(model: Model) -> UInt8[np.ndarray, "n h w c"]:
    """Noise of several brightnesses and contrasts."""
    channels, height, width = model.in_shape
    random = np.random.default_rng(0)
    means, deviations = random.uniform(0, 255, (2, IMAGES // 4, 1, 1, channels))
    noise = random.normal(means, deviations / 2, (IMAGES // 4, height, width, channels))
    return noise.clip(0, 255).astype(np.uint8)


def _predict_in_batches(
    content: bytes, pixels: UInt8[np.ndarray, "n h w c"]
) -> tuple[Float32[np.ndarray, "n m"], Float32[np.ndarray, "n k"]]:
    session = open_session(content, "the exported file", torch.get_num_threads())
    outputs = []
    sizes = cycle(BATCHES)
    place = 0
    while place < len(pixels):
        size = next(sizes)
        batch = np.ascontiguousarray(pixels[place : place + size])
        outputs.append(session.run(None, {"images": batch}))
        place += size
    probabilities, logits = map(np.concatenate, zip(*outputs, strict=True))
    return probabilities, logits


def _predict(task: Task, probabilities: Float32[np.ndarray, "n m"]) -> Shaped[np.ndarray, " n"]:
    """The predicted class or labels of each image, as ``lamina predict`` decides."""
    rows = probabilities[:, -task.outputs :].tolist()
    predicted = [str(make_prediction(task, "", row).predicted) for row in rows]
    return np.array(predicted)
