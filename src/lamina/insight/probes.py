"""Linear probes on each layer's output."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.data import Images
from lamina.data.images import Progress
from lamina.evaluation.evaluating import score
from lamina.insight.inspected_layers import describe_field, find_fields, list_size, name_stage
from lamina.markup import Table
from lamina.nets.modules import Whitening
from lamina.nets.window import Field
from lamina.shown import Shown
from lamina.targets import REGRESSION, Score
from lamina.training.head import USUAL_PENALTY, fit_head
from lamina.training.hooks import activations, call_order, learned_modules
from lamina.training.model import Model, split_pixels
from lamina.training.randomness import derive_seed, seeded
from lamina.training.task import Features, Pixels, task_of

# for the batch-norm statistics of nets with random weights
STATISTICS_IMAGES = 500
STATISTICS_BATCH = 100
NUMBERS_PENALTY = 10.0  # a larger one pulls numbers towards their mean, if there are few features
MOST_FEATURES = 1024
"""Largest input of a probe. Larger layers are average-pooled; larger vectors are projected at
random."""


@dataclass(frozen=True)
class LayerProbe:
    """The probes of a layer, with the trained and with random weights."""

    layer: str  # module path; empty for the input image
    name: str
    units: int | None  # ``None`` for the image
    receptive_field: Field | None  # of a unit; ``None`` for the whole image
    score: Score
    control: Score

    def to_json(self) -> dict[str, Any]:
        """JSON values; ``sees_px`` is the height and width of the receptive field."""
        return {
            "layer": self.layer,
            "name": self.name,
            "units": self.units,
            "sees_px": list_size(self.receptive_field),
            "metric": self.score.name,
            "probe": self.score.value,
            "probe_untrained": self.control.value,
        }


@dataclass(frozen=True)
class Probes(Shown):
    """How well a linear classifier on each layer's output separates the classes.

    Attributes:
        layers: the image, then each layer, with the score of its probe with the trained weights,
            and with random weights as the control.
        fitted: the number of training images that the probes were fitted to.
        scored: the number of images that they were scored on.
        split: the split of the scored images.
    """

    layers: tuple[LayerProbe, ...]
    fitted: int
    scored: int
    split: str

    def table(self) -> Table:
        """The column heads, and a row for the image and for each layer."""
        rows: list[tuple[str, ...]] = []
        for probe in self.layers:
            score = probe.score.format(probe.score.value, 1)
            if probe.units is None:
                rows.append((probe.name, "", "", score, ""))
                continue
            control = probe.control.format(probe.control.value, 1)
            field = describe_field(probe.receptive_field)
            rows.append((probe.name, f"{probe.units:,}", field, score, control))
        metric = self.layers[0].score.title
        return ("layer", "units", "receptive field", f"probe {metric}", "random weights"), rows

    def headline(self) -> str:
        """A definition of a probe, and the numbers of images."""
        return (
            f"A probe is a linear classifier on a layer's output, fitted to {self.fitted:,}"
            f" training images and scored on {self.scored:,} of {self.split}."
        )


def compare_probes(
    model: Model,
    train: Images,
    held_out: Images,
    layers: Sequence[str],
    progress: Progress | None = None,
) -> Probes:
    """Probe the input and each layer, with the model's weights and with random weights."""
    trained = probe_layers(model, train, held_out, ["", *layers], progress)
    controls = probe_layers(untrain(model, train), train, held_out, layers, progress)
    receptive_fields = find_fields(model, layers)
    shapes = call_order(model, layers)
    probes = [LayerProbe("", "image", None, None, trained[""], trained[""])]
    for path in layers:
        shape = shapes[path]
        units = shape[-1] if len(shape) == 2 else shape[0]  # tokens have units last
        name = name_stage(model, path)
        scores = (trained[path], controls[path])
        probes.append(LayerProbe(path, name, units, receptive_fields[path], *scores))
    return Probes(tuple(probes), len(train), len(held_out), str(held_out.split))


def probe_layers(
    model: Model,
    train: Images,
    held_out: Images,
    layers: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Score]:
    """Fit a linear probe on ``train`` for each layer; score it on ``held_out``.

    The layer ``""`` is the input.

    A probe is a head as ``head="fitted"`` fits it, with one L2 penalty. Source: Alain and Bengio,
    arXiv 1610.01644.
    """
    task = task_of(train)  # without the thresholds and temperatures of the model's logits
    targets = torch.from_numpy(np.array(train.targets))
    penalty = NUMBERS_PENALTY if task.kind is REGRESSION else USUAL_PENALTY
    train_outputs = reduce_outputs(model, train.pixels, layers, progress)
    held_out_outputs = reduce_outputs(model, held_out.pixels, layers, progress)
    scores: dict[str, Score] = {}
    for layer, features in train_outputs.items():
        head = fit_head(features, targets, task, penalty)
        logits = head.logits(held_out_outputs[layer])
        scores[layer] = score(task, logits.numpy(), held_out.targets)
        if progress is not None:
            progress(len(scores), len(train_outputs))
    return scores


@torch.no_grad()
def untrain(model: Model, images: Images, seed: int = 0) -> Model:
    """A copy with random weights and recalibrated batch-norm statistics; keeps fixed layers."""
    untrained = redraw(model, seed)
    batch_norms: list[_BatchNorm] = []
    for module, copied in zip(model.modules(), untrained.modules(), strict=True):
        if isinstance(module, Whitening) and isinstance(copied, Whitening):
            copied.weight.copy_(module.weight)
        if isinstance(copied, _BatchNorm) and copied.track_running_stats:
            batch_norms.append(copied)
    if batch_norms:
        _recalibrate(untrained, batch_norms, images.take_evenly(STATISTICS_IMAGES).pixels)
    return untrained.eval()


def redraw(model: Model, seed: int = 0) -> Model:
    """A copy with new random weights."""
    copied = copy.deepcopy(model)
    with torch.no_grad(), seeded(derive_seed(seed, "redraw"), model.device):
        for layer in learned_modules(copied):
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            # normal, with the standard deviation of the weights
            for weight in layer.parameters(recurse=False):
                weight.normal_(0, float(weight.std(correction=0)) or 1.0)
    return copied


def _recalibrate(model: Model, batch_norms: Sequence[_BatchNorm], pixels: Pixels) -> None:
    """Measure the statistics of batch norms on images, if there are several."""
    momenta = [batch_norm.momentum for batch_norm in batch_norms]
    for batch_norm in batch_norms:
        batch_norm.reset_running_stats()
        batch_norm.momentum = None  # the mean over all batches
        batch_norm.train()
    with seeded(0, model.device):
        for batch in torch.from_numpy(np.ascontiguousarray(pixels)).split(STATISTICS_BATCH):
            if len(batch) > 1:
                model(batch.to(model.device))
    for batch_norm, momentum in zip(batch_norms, momenta, strict=True):
        batch_norm.momentum = momentum


def reduce_outputs(
    model: Model,
    pixels: Pixels,
    layers: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Features]:
    """Reduce each layer's output to at most 1,024 numbers per image; ``""`` is the input."""
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    modules = [layer for layer in layers if layer]
    batches = split_pixels(pixels)
    for done, batch in enumerate(batches, start=1):
        images = torch.from_numpy(np.ascontiguousarray(batch)).to(model.device)
        outputs = {"": model.normalize(images), **activations(model, images, modules)}
        for layer, batches_of_layer in parts.items():
            batches_of_layer.append(_reduce(outputs[layer]).cpu())
        if progress is not None:
            progress(done, len(batches))
    # One layer after another, so that the batches of all layers are not held twice.
    return {layer: torch.cat(parts.pop(layer)) for layer in layers}


def _reduce(output: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    output = output.float()
    if output.ndim == 4 and output[0].numel() > MOST_FEATURES:
        scale = math.sqrt(MOST_FEATURES / output[0].numel())
        height, width = (max(1, int(side * scale)) for side in output.shape[2:])
        output = functional.adaptive_avg_pool2d(output, (height, width))
    elif output.ndim == 3:
        output = output.mean(dim=1)
    flat = output.flatten(1)
    if flat.shape[1] > MOST_FEATURES:
        generator = torch.Generator().manual_seed(derive_seed(0, "probe"))
        flat = flat @ torch.randn(flat.shape[1], MOST_FEATURES, generator=generator).to(flat)
    return flat
