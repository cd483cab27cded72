"""Linear heads on features, with an L2 penalty chosen by cross-validation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn

from lamina.data import Images
from lamina.training.features import features
from lamina.training.fit import PRETRAINED_HOME, fit_recipe
from lamina.training.freezing import find_trunk
from lamina.training.model import build_model
from lamina.training.optim import quicken
from lamina.training.pretrained import RECIPES
from lamina.training.recipe import Recipe
from lamina.training.schedule import Plan, lr_factor
from lamina.training.task import Task

CHOOSING_STEPS = 250  # enough to rank the penalties
PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0)
"""Weight decays to choose from. Adam adds them to the gradient, so each is an L2 penalty on the head's weights."""
CHOOSING_IMAGES = 1000  # computing features takes most of the time
FOLDS = 3
IMAGES_AT_ONCE = 32  # on a CPU, larger batches are slower


class Heads(NamedTuple):
    """A linear head for each of ``PENALTIES``."""

    weights: Float[Tensor, "d penalties k"]
    bias: Float[Tensor, "penalties k"]

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "penalties n k"]:
        return torch.einsum("nd,dgk->gnk", features, self.weights) + self.bias[:, None]


def choose_frozen_recipe(body: nn.Module, images: Images, seed: int = 0) -> Recipe:
    """The recipe for training only the head of ``body``, with a cross-validated weight decay."""
    side_px = min(images.shape[1:])
    recipe = replace(fit_recipe(RECIPES["frozen"], len(images), side_px, images.kind, PRETRAINED_HOME), seed=seed)
    sample = images.take_evenly(CHOOSING_IMAGES)
    model = build_model(body, sample, recipe)
    if not has_linear_head(body) or len(sample) < 2 * FOLDS:
        return recipe
    given = features(model, sample.pixels, at_once=IMAGES_AT_ONCE)
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(recipe.seed))
    folds = torch.empty(len(given), dtype=torch.int64)
    folds[order] = torch.arange(len(given)) % FOLDS
    best, _ = choose_penalty(given, torch.from_numpy(sample.targets), folds, model.task, recipe)
    return replace(recipe, weight_decay=round(PENALTIES[best] * math.sqrt(len(sample) / len(images)), 4))


def has_linear_head(body: nn.Module) -> bool:
    return [isinstance(head, nn.Linear) for head in find_trunk(body).heads] == [True]


def choose_penalty(
    features: Float[Tensor, "n d"],
    targets: Num[Tensor, "n ..."],
    folds: Int64[Tensor, " n"],
    task: Task,
    recipe: Recipe,
) -> tuple[int, list[Heads]]:
    """Index of the penalty with the lowest held-out loss, and the heads trained without each fold."""
    heads, losses = [], torch.zeros(len(PENALTIES))
    for fold in range(int(folds.max()) + 1):
        is_kept = folds != fold
        heads.append(fit_heads(features[is_kept], targets[is_kept], task, recipe))
        logits = heads[-1].logits(features[~is_kept])
        losses += torch.stack([task.loss(own, targets[~is_kept]) for own in logits])
    return int(losses.argmin()), heads


@torch.enable_grad()
def fit_heads(features: Float[Tensor, "n d"], targets: Num[Tensor, "n ..."], task: Task, recipe: Recipe) -> Heads:
    groups = len(PENALTIES)
    weights = torch.zeros(features.shape[1], groups, task.outputs, requires_grad=True)
    bias = torch.zeros(groups, task.outputs, requires_grad=True)
    penalties = torch.tensor(PENALTIES)
    optimizer = quicken(torch.optim.Adam)([weights, bias], lr=recipe.lr, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(CHOOSING_STEPS):
        rows = torch.randint(len(features), (recipe.batch_size,), generator=generator)
        optimizer.param_groups[0]["lr"] = recipe.lr * lr_factor(recipe, step, Plan(CHOOSING_STEPS))
        logits = (features[rows] @ weights.flatten(1)).unflatten(1, bias.shape) + bias
        fit = groups * task.loss(logits.flatten(0, 1), targets[rows].repeat_interleave(groups, 0))
        loss = fit + (weights.square().sum((0, 2)) * penalties).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Heads(weights.detach(), bias.detach())
