"""The L2 penalty of a pretrained net's head, chosen by cross-validation on the training images."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn

from lamina.data import Images
from lamina.data.images import Progress
from lamina.training.activations import path_of, record_calls
from lamina.training.fit import PRETRAINED_HOME, fit_recipe
from lamina.training.freezing import find_trunk
from lamina.training.model import Model, build_model
from lamina.training.optim import Adam
from lamina.training.pretrained import RECIPES
from lamina.training.recipe import Recipe
from lamina.training.schedule import lr_factor
from lamina.training.task import Task
from lamina.training.tracing import fold_model

CHOOSING_STEPS = 250
"""Number of steps in each training of the cross-validation: enough to rank the penalties."""
PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0)
"""Weight decays to choose from: Adam adds them to the gradient, so that each is an L2 penalty on the head's weights."""
CHOOSING_IMAGES = 1000
"""Upper limit of the images used for choosing, because computing their features takes most of the time."""
FOLDS = 3
"""Number of folds of the cross-validation."""
BATCH = 32
"""Number of images whose features are computed at once; on a CPU, larger batches are slower."""


def choose_frozen_recipe(body: nn.Module, images: Images, seed: int = 0) -> Recipe:
    """The recipe for training only the head of ``body``, with the weight decay of the lowest cross-validated loss.

    The head is linear in its features, so given enough steps the penalty alone decides where training ends. In
    threefold cross-validation on at most 1,000 of the images, heads for all penalties are trained at once. For more
    images than that, the penalty falls with the square root of their number.

    Raises:
        RecipeError: the net names no head.
    """
    side_px = min(images.shape[1:])
    recipe = replace(fit_recipe(RECIPES["frozen"], len(images), side_px, images.kind, PRETRAINED_HOME), seed=seed)
    sample = images.take_evenly(CHOOSING_IMAGES)
    model = build_model(body, sample, recipe)
    head = find_head(body)
    if head is None or len(sample) < 2 * FOLDS:
        return recipe
    features = compute_features(model, head, torch.from_numpy(sample.pixels))
    losses = _cross_validate(features, torch.from_numpy(sample.targets), model.task, recipe)
    least = PENALTIES[int(losses.argmin())]
    return replace(recipe, weight_decay=round(least * math.sqrt(len(sample) / len(images)), 4))


def find_head(body: nn.Module) -> nn.Linear | None:
    """The one linear layer that gives a net's logits; ``None`` for distilled nets, which have two.

    Raises:
        RecipeError: the net names no head.
    """
    (head, *others) = find_trunk(body).heads
    return head if not others and isinstance(head, nn.Linear) else None


def compute_features(
    model: Model, head: nn.Module, pixels: UInt8[Tensor, "n h w c"], progress: Progress | None = None
) -> Float[Tensor, "n d"]:
    """What the head of a model gets as input for each picture; ``progress(pictures done, all)`` is called meanwhile."""
    path, folded = path_of(model, head), fold_model(model)
    features = [torch.empty(0, head.in_features)] if isinstance(head, nn.Linear) else []
    for batch in pixels.split(BATCH) if len(pixels) else ():
        features.append(record_calls(folded, batch, [path])[path].input.cpu())
        if progress is not None:
            progress(min(len(pixels), (len(features) - 1) * BATCH), len(pixels))
    return torch.cat(features)


def _cross_validate(
    features: Float[Tensor, "n d"], targets: Num[Tensor, "n ..."], task: Task, recipe: Recipe
) -> Float[Tensor, " penalties"]:
    """The loss on the held-out images, summed over the folds, for each penalty."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(recipe.seed))
    folds = torch.empty(len(features), dtype=torch.int64)
    folds[order] = torch.arange(len(features)) % FOLDS
    losses = torch.zeros(len(PENALTIES))
    for fold in range(FOLDS):
        is_kept = folds != fold
        weights, bias = train_heads(features[is_kept], targets[is_kept], task, recipe)
        logits = head_logits(features[~is_kept], weights, bias)
        losses += torch.stack([task.loss(own, targets[~is_kept]) for own in logits])
    return losses


def head_logits(
    features: Float[Tensor, "n d"], weights: Float[Tensor, "d penalties k"], bias: Float[Tensor, "penalties k"]
) -> Float[Tensor, "penalties n k"]:
    """The logits of the heads that :func:`train_heads` gave."""
    return torch.einsum("nd,dgk->gnk", features, weights) + bias[:, None]


@torch.enable_grad()
def train_heads(
    features: Float[Tensor, "n d"], targets: Num[Tensor, "n ..."], task: Task, recipe: Recipe
) -> tuple[Float[Tensor, "d penalties k"], Float[Tensor, "penalties k"]]:
    """Weights and bias of a head for each of ``PENALTIES``, all trained in the same 250 steps on features."""
    groups = len(PENALTIES)
    weights = torch.zeros(features.shape[1], groups, task.outputs, requires_grad=True)
    bias = torch.zeros(groups, task.outputs, requires_grad=True)
    penalties = torch.tensor(PENALTIES)
    optimizer = Adam([weights, bias], lr=recipe.lr, fused=True)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(CHOOSING_STEPS):
        rows = torch.randint(len(features), (recipe.batch_size,), generator=generator)
        optimizer.param_groups[0]["lr"] = recipe.lr * lr_factor(recipe, step, CHOOSING_STEPS)
        logits = (features[rows] @ weights.flatten(1)).unflatten(1, bias.shape) + bias
        fit = groups * task.loss(logits.flatten(0, 1), targets[rows].repeat_interleave(groups, 0))
        loss = fit + (weights.square().sum((0, 2)) * penalties).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach(), bias.detach()
