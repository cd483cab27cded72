"""Linear probes on each layer's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.data import Images
from lamina.data.images import Progress
from lamina.evaluation.evaluating import score_logits
from lamina.insight.faithfulness import redraw
from lamina.nets.modules import Whitening
from lamina.targets import SINGLE_LABEL, Score
from lamina.training.hooks import activations
from lamina.training.model import Model, split_pixels
from lamina.training.randomness import derive_seed, seeded
from lamina.training.task import Regression

# for the batch-norm statistics of nets with random weights
STATISTICS_IMAGES, STATISTICS_BATCH = (500, 100)
MOST_FEATURES = 1024
"""Largest input of a probe. Larger layers are average-pooled; larger vectors are projected at
random."""
PENALTIES = tuple(10.0**power for power in range(-1, 7))
"""L2 penalties; a probe uses the one with the smallest leave-one-out error."""


@dataclass(frozen=True)
class Probe:
    """The held-out score of a linear probe on a layer (Alain and Bengio, arXiv 1610.01644)."""

    layer: str  # module path; empty for the input image
    features: int  # number of inputs of the probe
    score: Score


def probe_layers(
    model: Model,
    train: Images,
    held_out: Images,
    layers: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Probe, ...]:
    """Fit a linear probe on ``train`` for the input and each layer; score it on ``held_out``."""
    goals = probe_targets(model, train)
    inputs = [
        reduce_outputs(model, images.pixels, layers, progress) for images in (train, held_out)
    ]
    probes = []
    for done, layer in enumerate(("", *layers), start=1):
        predicted, _ = fit_ridge(inputs[0][layer], goals, inputs[1][layer])
        report = score_logits(model.task, predicted.astype(np.float32), held_out, 0.0)
        probes.append(Probe(layer, inputs[0][layer].shape[1], report.score))
        if progress is not None:
            progress(done, len(layers) + 1)
    return tuple(probes)


@torch.no_grad()
def untrain(model: Model, images: Images, seed: int = 0) -> Model:
    """A copy with random weights and recalibrated batch-norm statistics; keeps fixed layers."""
    untrained = redraw(model, 1.0, seed)
    batch_norms: list[_BatchNorm] = []
    for module, own in zip(model.modules(), untrained.modules(), strict=True):
        if isinstance(module, Whitening) and isinstance(own, Whitening):
            own.weight.copy_(module.weight)
        if isinstance(own, _BatchNorm) and own.track_running_stats:
            batch_norms.append(own)
    momenta = [batch_norm.momentum for batch_norm in batch_norms]
    some = torch.from_numpy(np.ascontiguousarray(images.take_evenly(STATISTICS_IMAGES).pixels))
    for batch_norm in batch_norms:
        batch_norm.reset_running_stats()
        batch_norm.momentum = None  # the mean over all batches
        batch_norm.train()
    with seeded(0, untrained.device):
        for part in some.split(STATISTICS_BATCH) if batch_norms and len(some) > 1 else ():
            if len(part) > 1:
                untrained(part.to(untrained.device))
    for batch_norm, momentum in zip(batch_norms, momenta, strict=True):
        batch_norm.momentum = momentum
    return untrained.eval()


def probe_targets(model: Model, images: Images) -> Float64[np.ndarray, "n k"]:
    """A probe's targets: 1 for a class or label of the image, else -1; standardized numbers."""
    targets = np.asarray(images.targets, np.float64)
    if isinstance(model.task, Regression):
        standardized: Float64[np.ndarray, "n k"] = (targets - model.task.means) / np.array(
            model.task.standard_deviations
        )
        return standardized
    if model.task.kind is SINGLE_LABEL:
        targets = targets[:, None] == np.arange(model.task.outputs)
    return np.where(targets.reshape(len(targets), -1) > 0, 1.0, -1.0)


def reduce_outputs(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    layers: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Float64[np.ndarray, "n d"]]:
    """Reduce each layer's output to at most 1,024 numbers per image; key ``""`` is the input."""
    parts: dict[str, list[Tensor]] = {layer: [] for layer in ("", *layers)}
    chunks = split_pixels(pixels)
    for batch in chunks:
        chunk = torch.from_numpy(np.ascontiguousarray(batch)).to(model.device)
        parts[""].append(_reduce(model.normalize(chunk)).cpu())
        for layer, output in activations(model, chunk, layers).items():
            parts[layer].append(_reduce(output).cpu())
        if progress is not None:
            progress(len(parts[""]), len(chunks))
    return {layer: torch.cat(own).double().numpy() for layer, own in parts.items()}


def _reduce(output: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    output = output.float()
    if output.ndim == 4 and output[0].numel() > MOST_FEATURES:
        height, width = output.shape[2:]
        scale = math.sqrt(MOST_FEATURES / output[0].numel())
        output = functional.adaptive_avg_pool2d(
            output, (max(1, int(height * scale)), max(1, int(width * scale)))
        )
    elif output.ndim == 3:
        output = output.mean(dim=1)
    flat = output.flatten(1)
    if flat.shape[1] > MOST_FEATURES:
        generator = torch.Generator().manual_seed(derive_seed(0, "probe"))
        flat = flat @ torch.randn(flat.shape[1], MOST_FEATURES, generator=generator).to(flat)
    return flat


def fit_ridge(
    features: Float64[np.ndarray, "n d"],
    targets: Float64[np.ndarray, "n k"],
    others: Float64[np.ndarray, "m d"],
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Float64[np.ndarray, "m k"], float]:
    """Ridge regression: predictions for ``others``, penalty with the least leave-one-out error."""
    # Both follow from one eigendecomposition (Hastie et al., The elements of statistical learning,
    # equation 7.64).
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > 1e-9 * (1 + np.abs(mean)), std, np.inf)
    own, other = (features - mean) / std, (others - mean) / std
    center = targets.mean(axis=0)
    values, vectors = np.linalg.eigh(own.T @ own)
    values = values.clip(min=0)
    turned = own @ vectors
    products = turned.T @ (targets - center)
    errors = []
    for penalty in penalties:
        shrunk = 1 / (values + penalty)
        residuals = targets - center - turned @ (shrunk[:, None] * products)
        leverages = (turned**2) @ shrunk + 1 / len(own)
        errors.append(float(((residuals / (1 - leverages)[:, None]) ** 2).mean()))
    penalty = penalties[int(np.argmin(errors))]
    weights = vectors @ (products / (values + penalty)[:, None])
    return other @ weights + center, penalty
