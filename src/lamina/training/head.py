"""Linear heads on features, fitted to convergence; cross-validation chooses the L2 penalty."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lamina.data import Images
from lamina.data.splits import deal
from lamina.errors import NotFiniteError, RecipeError
from lamina.training.events import FeatureProgress, HeadFit
from lamina.training.model import Model
from lamina.training.prediction import iter_features, trace_head
from lamina.training.randomness import derive_generator
from lamina.training.recipe import Recipe
from lamina.training.task import Features, Indices, Logits, Targets, Task, Weights

PENALTIES = (10_000.0, 3_000.0, 1_000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Penalties to choose from; each is multiplied by half the squared weights and added to the sum of
all losses."""
USUAL_PENALTY = 100.0  # for too few images to choose
# number of penalties in a row that do not lower the held-out loss, before the search ends
PATIENCE = 2
FOLDS = 3
CHOOSING_IMAGES = 2_000
FITTED_IMAGES = 20_000
"""The largest numbers of images to choose the penalty with, and to fit the head to."""
MOST_STEPS = 100  # of L-BFGS
TOLERANCE = 3e-4
"""A fit has converged if no derivative of the mean loss exceeds this; smaller tolerances change no
prediction."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer for features."""

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]

    def logits(self, features: Features) -> Logits:
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Heads of a cross-validation, one fitted without each fold."""

    heads: tuple[Head, ...]
    logits: Logits  # of each image, from the head that was fitted without it


def find_linear_head(model: Model) -> str:
    """The path of the linear layer that computes the logits; ``RecipeError`` if there is none."""
    path, call, computes_logits = trace_head(model)
    layer = model.get_submodule(path)
    is_linear = type(layer) is nn.Linear and layer.bias is not None and call.input.ndim == 2
    if not is_linear or not computes_logits:
        raise RecipeError(
            "head is 'fitted', which needs a net whose logits are the output of one linear layer"
            f" with a bias, but this net's last layer, {path} ({layer}), does not compute its"
            " logits. Set head to 'random'.",
            field="head",
        )
    return path


def fit_model_head(
    model: Model, path: str, images: Images, recipe: Recipe, *, autocasts: bool = False
) -> Iterator[FeatureProgress | HeadFit]:
    """Replace the weights of the head at ``path`` with weights that are fitted to its features."""
    began = time.perf_counter()
    task = model.task
    layer = model.get_submodule(path)
    rows = np.linspace(0, len(images) - 1, min(len(images), FITTED_IMAGES)).astype(np.int64)
    sample = images.take(rows)
    parts: list[Tensor] = []
    for _, part in iter_features(model, path, sample.pixels, autocasts=autocasts):
        parts.append(part)
        yield FeatureProgress(sum(map(len, parts)), len(sample))
    features = _join_features(parts)
    targets = torch.from_numpy(sample.targets)
    weights = task.weigh(targets) if recipe.class_weights else None
    few = torch.linspace(0, len(sample) - 1, min(len(sample), CHOOSING_IMAGES)).long()
    folds = deal_folds(sample, few.numpy(), recipe.seed)
    of_few = None if weights is None else weights[few]
    penalty = choose_penalty(features[few], targets[few], folds, task, of_few)
    held_out = cross_fit(features[few], targets[few], folds, task, penalty, of_few)
    head = fit_head(features, targets, task, penalty, weights)
    layer.load_state_dict(vars(head))
    loss = math.nan
    accuracy = None
    if held_out.heads:
        loss = task.loss(held_out.logits, task.prepare(targets[few]), weights=of_few).item()
        correct = task.correct(held_out.logits, targets[few]).item()
        accuracy = None if math.isnan(correct) else correct / len(few)
    seconds = time.perf_counter() - began
    yield HeadFit(
        len(sample),
        features.shape[1],
        penalty,
        loss,
        accuracy,
        seconds,
    )


def _join_features(parts: list[Tensor]) -> Features:
    features = torch.cat(parts)
    if not torch.isfinite(features).all():
        raise NotFiniteError(
            "The features of the pretrained net contain NaN or infinity, so no head can be fitted"
            " to them. Use other weights, or precision fp32."
        )
    return features


def deal_folds(
    images: Images, rows: Int64[np.ndarray, " n"], seed: int, folds: int = FOLDS
) -> Indices:
    """The fold of each image; strata are spread evenly over folds, and groups stay whole."""
    strata = images.kind.strata(images.targets[rows])
    if images.groups:
        return torch.tensor(
            deal(strata, [images.groups[row] for row in rows.tolist()], [1 / folds] * folds, seed)
        )
    order = torch.randperm(len(strata), generator=derive_generator(seed, "folds")).tolist()
    # a stable sort, so each stratum stays in random order
    order.sort(key=lambda row: str(strata[row]))
    dealt = torch.empty(len(strata), dtype=torch.int64)
    dealt[order] = torch.arange(len(strata)) % folds
    return dealt


def choose_penalty(
    features: Features,
    targets: Targets,
    folds: Indices,
    task: Task,
    weights: Weights | None = None,
) -> float:
    """The penalty with the lowest cross-validated loss, tried from the largest downwards."""
    if len(folds) < 2 * (int(folds.max()) + 1):
        return USUAL_PENALTY
    best = USUAL_PENALTY
    lowest = float("inf")
    failures = 0
    starts: Sequence[Head] = ()
    for penalty in PENALTIES:
        fit = cross_fit(features, targets, folds, task, penalty, weights, starts)
        loss = task.loss(fit.logits, task.prepare(targets), weights=weights).item()
        starts = fit.heads
        if loss < lowest:
            best = penalty
            lowest = loss
            failures = 0
        else:
            failures += 1
        if failures == PATIENCE:
            break
    return best


def cross_fit(
    features: Features,
    targets: Targets,
    folds: Indices,
    task: Task,
    penalty: float,
    weights: Weights | None = None,
    starts: Sequence[Head] = (),
) -> CrossFit:
    """Fit a head without each fold; no heads if there is one fold. ``starts`` saves steps."""
    logits = torch.zeros(len(features), task.outputs)
    heads = []
    for fold in range(int(folds.max()) + 1):
        is_held = folds == fold
        if is_held.all():
            break
        rest = None if weights is None else weights[~is_held]
        start = starts[fold] if starts else None
        heads.append(fit_head(features[~is_held], targets[~is_held], task, penalty, rest, start))
        logits[is_held] = heads[-1].logits(features[is_held])
    return CrossFit(tuple(heads), logits)


@torch.enable_grad()
def fit_head(
    features: Features,
    targets: Targets,
    task: Task,
    penalty: float,
    weights: Weights | None = None,
    start: Head | None = None,
) -> Head:
    """The head with the lowest penalized loss; ``start`` only saves steps.

    The penalty applies to the weights for centered features that are divided by the root of their
    mean square.
    """
    mean = features.mean(0)
    scale = (features - mean).square().mean().sqrt().clamp(min=1e-12)
    scaled = (features - mean) / scale
    prepared = task.prepare(targets)
    weight = torch.zeros(task.outputs, features.shape[1])
    bias = torch.zeros(task.outputs)
    if start is not None:
        weight = start.weight * scale
        bias = start.logits(mean[None])[0]
    weight = weight.clone().requires_grad_()
    bias = bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MOST_STEPS,
        tolerance_grad=TOLERANCE,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def measure() -> float:
        optimizer.zero_grad()
        loss = task.loss(torch.addmm(bias, scaled, weight.T), prepared, weights=weights)
        loss = loss + penalty / (2 * len(scaled)) * weight.square().sum()
        loss.backward()
        return loss.item()

    optimizer.step(measure)
    unscaled = weight.detach() / scale
    return Head(unscaled, bias.detach() - unscaled @ mean)
