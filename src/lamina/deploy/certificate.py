"""The proof that an exported file answers as the model does, on real pictures and in batches of several sizes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from lamina.data import Images
from lamina.deploy.export import OPSET, Format, open_session
from lamina.errors import NetError
from lamina.targets import REGRESSION, SINGLE_LABEL, Kind
from lamina.training.model import Model, predict_logits

PICTURES = 256
"""Upper limit of the pictures compared, evenly spread; a black and a white one are added."""
BATCHES = (1, 2, 7)
"""Sizes of the batches, in turn: a frozen batch size would fail."""
TOLERANCE = 1e-4
"""Upper limit of the difference of a logit, as a fraction of the largest one, or of 1."""

Run: TypeAlias = Callable[[UInt8[np.ndarray, "n h w c"]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Certificate:
    """What was compared, and how far apart the answers were.

    Attributes:
        format: ``onnx`` or ``pt2``.
        opset: of ONNX; ``None`` for others.
        pictures: how many were compared, with the black and the white one.
        split: which they were from.
        batches: sizes of the batches.
        difference: the largest of a logit.
        limit: what it may be at most.
        probability_difference: the largest of a probability, or of a number in its own unit.
        same_answers: pictures with the same answer.
        close_calls: pictures with another, whose best two answers are nearer to each other than twice the limit.
    """

    format: Format
    opset: int | None
    pictures: int
    split: str
    batches: tuple[int, ...]
    difference: float
    limit: float
    probability_difference: float
    same_answers: int
    close_calls: int

    def __str__(self) -> str:
        others = f", {self.close_calls} too close to call" if self.close_calls else ""
        return (
            f"equal to the run on {self.pictures:,} pictures, of {self.split}, black and white, in batches of "
            f"{', '.join(map(str, self.batches))}: logits differ by at most {self.difference:.1e} "
            f"(limit {self.limit:.1e}), {self.same_answers:,} answers are the same{others}"
        )


def certify(content: bytes, kind: Format, model: Model, images: Images) -> Certificate:
    """Compare an exported file with the model, on some of ``images``, a black picture and a white one.

    Raises:
        NetError: it cannot be run, or gives other answers.
    """
    some = images.take_evenly(PICTURES)
    plain = np.stack([np.full(some.pixels.shape[1:], value, np.uint8) for value in (0, 255)])
    pixels = np.concatenate([some.pixels, plain])
    run = _open(content, kind)
    logits, answers = [], []
    place = turn = 0
    while place < len(pixels):
        size = BATCHES[turn % len(BATCHES)]
        found, raw = run(np.ascontiguousarray(pixels[place : place + size]))
        answers.append(found)
        logits.append(raw)
        place, turn = place + size, turn + 1
    expected = predict_logits(model, pixels)
    task = model.task
    expected_answers = task.probabilities(torch.from_numpy(expected)).numpy()
    got, got_answers = np.concatenate(logits), np.concatenate(answers)
    if got.shape != expected.shape or got_answers.shape != expected_answers.shape:
        raise NetError(f"The exported file gives {got.shape} for {len(pixels)} pictures, expected {expected.shape}.")
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(got - expected).max())
    is_same = _same_answers(got, expected, task.kind, limit)
    is_close = ~is_same & (_margins(expected, task.kind) < 2 * limit)
    scale = np.abs(expected_answers).max(initial=1.0) if task.kind is REGRESSION else 1.0
    apart = float(np.abs(got_answers - expected_answers).max())
    if not difference <= limit or not (is_same | is_close).all() or not apart <= TOLERANCE * max(1.0, float(scale)):
        raise NetError(
            f"The exported file does not answer as the run does: logits differ by up to {difference:.2g} (at most "
            f"{limit:.2g} is accepted), probabilities by {apart:.2g}, and {int((~is_same & ~is_close).sum()):,} of "
            f"{len(pixels):,} answers are others. It was not written."
        )
    return Certificate(
        format=kind,
        opset=OPSET if kind == "onnx" else None,
        pictures=len(pixels),
        split=images.split,
        batches=BATCHES,
        difference=difference,
        limit=limit,
        probability_difference=apart,
        same_answers=int(is_same.sum()),
        close_calls=int(is_close.sum()),
    )


def _open(content: bytes, kind: Format) -> Run:
    if kind == "onnx":
        session = open_session(content, "the exported file")
        return lambda batch: tuple(session.run(None, {"images": batch}))
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.load(io.BytesIO(content)).module()

    def run(batch: UInt8[np.ndarray, "n h w c"]) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            found, raw = program(torch.from_numpy(batch))
        return found.numpy(), raw.numpy()

    return run


def _same_answers(
    got: Float32[np.ndarray, "n k"], expected: Float32[np.ndarray, "n k"], kind: Kind, limit: float
) -> Bool[np.ndarray, " n"]:
    if kind is SINGLE_LABEL:
        same = np.asarray(got.argmax(axis=1) == expected.argmax(axis=1))
    elif kind is REGRESSION:
        same = np.asarray((np.abs(got - expected) <= limit).all(axis=1))
    else:
        same = np.asarray(((got > 0) == (expected > 0)).all(axis=1))
    return same


def _margins(expected: Float32[np.ndarray, "n k"], kind: Kind) -> Float[np.ndarray, " n"]:
    """How far the answer is from another: the two best logits, or the nearest to 0."""
    if kind is SINGLE_LABEL and expected.shape[1] > 1:
        best = np.sort(expected, axis=1)[:, -2:]
        return np.asarray(best[:, 1] - best[:, 0])
    return np.asarray(np.abs(expected).min(axis=1))
