"""Cross-validation over four folds: probabilities from nets that were not trained on the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, Int64

from lamina.data import Images
from lamina.data.images import Progress
from lamina.data.load import resize_images
from lamina.data.splits import deal
from lamina.errors import DataError, check_type, plural
from lamina.insight.confident_learning import check_kind
from lamina.insight.similarity import group_copies
from lamina.nets import Net
from lamina.targets import SINGLE_LABEL, Kind
from lamina.training.device import choose_device
from lamina.training.head import CHOOSING_IMAGES, choose_penalty, cross_fit, find_linear_head
from lamina.training.loop import Training
from lamina.training.model import build_model
from lamina.training.prediction import features
from lamina.training.pretrained import RECIPES, TimmNet
from lamina.training.randomness import derive_seed
from lamina.training.recipe import PRETRAINED_HOME, ZOO_HOME, Home, Recipe, fit_recipe
from lamina.training.task import task_of
from lamina.zoo import LEAST_CONVOLVED_PX, load_net, load_recipe

FOLDS = 4
MOST_OF_ALL, MOST_OF_A_CLASS = 1 / FOLDS, 0.5
"""Largest share of all images, and of a class, that a group kept in one fold may have: otherwise
the fold would be too large, or its net would hardly see the class."""
FEATURES_ALONE_IMAGES, FEATURES_IMAGES = 1_000, 20_000
"""With a pretrained net, up to the first number of images its features suffice; up to the second,
``cnn-s`` helps."""
FEATURES_SIDE_PX = 96
TRAINED_SIDE_PX = 64  # at most
# the recipe for ``cnn-s`` was chosen on this: three quarters of 10,000 images
HOME = Home(7_500, 32)
# Without label smoothing, the probabilities separate incorrect labels from correct ones better.
RECIPE = dataclasses.replace(load_recipe("cnn-s"), epochs=5, batch_size=100, label_smoothing=0.0)
# In addition to features, in two fifths of the time.
BRIEF_RECIPE = dataclasses.replace(RECIPE, epochs=3, batch_size=125, start_size_fraction=0.625)
INDEPENDENCE = 0.75
"""Exponent of the factors when probabilities are multiplied: below 1, because all nets learned the
given labels."""
LEAST_PROBABILITY = 1e-6  # keeps a single net from deciding
PROGRESS_PARTS = 1000


@dataclass(frozen=True, eq=False)
class CrossPrediction:
    """Probabilities from nets not trained on the images; for ``others``, the mean over folds."""

    held_out: Float32[np.ndarray, "n k"] = field(repr=False)
    others: tuple[Float32[np.ndarray, "_ k"], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Plan:
    """A net or pretrained net to cross-validate, with the recipe of the net or of the head."""

    net_name: str
    net: Net | TimmNet
    recipe: Recipe
    side_px: int
    reason: str

    def __str__(self) -> str:
        return f"{self.net_name} ({self.reason})"


def check_dealable(images: Images) -> None:
    """Raise ``DataError`` if targets are numbers, or images are too few for four folds."""
    check_kind(images.kind)
    if len(images) < 2 * FOLDS:
        raise DataError(
            f"The train split has {plural(len(images), 'image', 'images')}; label checking needs at"
            f" least {2 * FOLDS}. Add images, or check the labels yourself."
        )


def limit_groups(images: Images, groups: Sequence[Hashable]) -> tuple[list[Hashable], int]:
    """The groups, with those too large for one fold divided, and the number of images in these."""
    # Pairs of near-duplicates, such as successive frames of a video, may form a chain through a
    # whole class. lamina divides it into the given groups and identical images, and those that are
    # still too large into single images.
    found = list(groups)
    divided = _find_too_large(images, found)
    part = images.take(divided)
    for row, copies in zip(divided, group_copies(part.pixels, (), part.groups), strict=True):
        found[row] = ("identical", copies)
    for row in _find_too_large(images, found):
        found[row] = ("single", row)
    return found, len(divided)


def _find_too_large(images: Images, groups: Sequence[Hashable]) -> list[int]:
    """The rows of the images in groups that are too large for one fold."""

    def count(rows: Sequence[int] | slice) -> Int64[np.ndarray, " k"]:
        targets = images.targets[rows]
        if images.kind is SINGLE_LABEL:
            return np.bincount(targets, minlength=len(images.target_names))
        of_yes = targets.reshape(len(targets), -1).sum(axis=0)
        return np.concatenate([of_yes, len(targets) - of_yes])

    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    totals, found = count(slice(None)), []
    for rows in members.values():
        if len(rows) > 1:
            own = count(rows)
            takes_a_class = ((own > 1) & (own > MOST_OF_A_CLASS * totals)).any()
            if takes_a_class or len(rows) > MOST_OF_ALL * len(groups):
                found += rows
    return found


def cross_predict(
    images: Images,
    others: Sequence[Images] = (),
    *,
    net: Net | TimmNet,
    recipe: Recipe,
    groups: Sequence[Hashable] | None = None,
    progress: Progress | None = None,
) -> CrossPrediction:
    """Train ``net``, or a head for it, on three of four folds, and predict the fourth.

    The images of a group share a fold.
    """
    check_type(images, (Images,), "images", "Images, such as dataset.train", is_optional=False)
    check_type(net, (Net, TimmNet), "net", 'a Net, such as load_net("cnn-s")', is_optional=False)
    check_type(
        recipe, (Recipe,), "recipe", 'a Recipe, such as load_recipe("cnn-s")', is_optional=False
    )
    check_dealable(images)
    limited, _ = limit_groups(
        images, group_copies(images.pixels, (), images.groups) if groups is None else groups
    )
    seed = derive_seed(recipe.seed, "folds")
    folds = np.array(deal(images.kind.strata(images.targets), limited, [1 / FOLDS] * FOLDS, seed))
    if isinstance(net, TimmNet):
        return _predict_by_heads(images, others, folds, net, recipe, progress)
    return _predict_by_nets(images, others, folds, net, recipe, progress)


def _predict_by_nets(
    images: Images,
    others: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    net: Net,
    recipe: Recipe,
    progress: Progress | None,
) -> CrossPrediction:
    task = task_of(images)
    own = np.empty((len(images), task.outputs), np.float32)
    sums = [np.zeros((len(each), task.outputs), np.float32) for each in others]
    for fold in range(FOLDS):
        held, kept = (np.flatnonzero(is_in) for is_in in (folds == fold, folds != fold))
        seeded = dataclasses.replace(recipe, seed=derive_seed(recipe.seed, "fold", fold))
        training = Training(net.with_outputs(task.outputs), images.take(kept), seeded)
        steps = recipe.epochs * training.steps_per_epoch
        for _ in training:
            if progress is not None:
                progress(fold * steps + training.steps_done, FOLDS * steps)
        own[held] = _to_probabilities(training, images.pixels[held])
        for sum_, each in zip(sums, others, strict=True):
            sum_ += _to_probabilities(training, each.pixels)
    return CrossPrediction(own, tuple(sum_ / FOLDS for sum_ in sums))


def _predict_by_heads(
    images: Images,
    others: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    net: TimmNet,
    recipe: Recipe,
    progress: Progress | None,
) -> CrossPrediction:
    task = task_of(images)
    place = choose_device(recipe.device).value
    model = build_model(net.module(images.shape, task.outputs), images, recipe).to(place)
    find_linear_head(model)  # rejects a net without one
    pixels = np.concatenate([each.pixels for each in (images, *others)])
    first, *rest = features(model, pixels, progress).split([len(images), *map(len, others)])
    targets, parts = torch.from_numpy(np.array(images.targets)), torch.from_numpy(folds)
    few = torch.linspace(0, len(first) - 1, min(len(first), CHOOSING_IMAGES)).long()
    fit = cross_fit(
        first, targets, parts, task, choose_penalty(first[few], targets[few], parts[few], task)
    )
    own = task.probabilities(fit.logits)
    means = [
        torch.stack([task.probabilities(head.logits(each)) for head in fit.heads]).mean(dim=0)
        for each in rest
    ]
    return CrossPrediction(own.numpy(), tuple(mean.numpy() for mean in means))


def _to_probabilities(training: Training, pixels: np.ndarray) -> Float32[np.ndarray, "n k"]:
    logits = torch.from_numpy(training.predict_logits(pixels))
    return training.model.task.probabilities(logits).numpy()


def choose_plans(images: Images, pretrained: TimmNet | None) -> tuple[Plan, ...]:
    """The plans for ``images``, by their number and size; ``pretrained`` is a net, if available."""
    if pretrained is None or len(images) > FEATURES_IMAGES or images.shape[0] not in (1, 3):
        return (_train_small(images, RECIPE),)
    if len(images) <= FEATURES_ALONE_IMAGES:
        return (_take_features(images, pretrained),)
    return _take_features(images, pretrained), _train_small(images, BRIEF_RECIPE)


def predict_by(
    plans: Sequence[Plan],
    images: Images,
    others: Sequence[Images] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    progress: Progress | None = None,
) -> CrossPrediction:
    """The product of all plans' probabilities (:func:`cross_predict`), better than their mean."""
    predictions = []
    for place, plan in enumerate(plans):
        report = None if progress is None else partial(_report_part, progress, place, len(plans))
        own, *rest = (resize_images(each, plan.side_px) for each in (images, *others))
        predictions.append(
            cross_predict(
                own,
                rest,
                net=plan.net,
                recipe=plan.recipe,
                groups=groups,
                progress=report,
            )
        )
    if len(predictions) == 1:
        return predictions[0]
    others_of = zip(*(prediction.others for prediction in predictions), strict=True)
    return CrossPrediction(
        multiply([prediction.held_out for prediction in predictions], images.kind),
        tuple(multiply(each, images.kind) for each in others_of),
    )


def multiply(
    probabilities: Sequence[Float32[np.ndarray, "n k"]], kind: Kind
) -> Float32[np.ndarray, "n k"]:
    """The tempered, normalized product of nets' probabilities; for multi-label, label by label."""
    clipped = [np.clip(each, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY) for each in probabilities]
    product = np.prod(clipped, axis=0) ** INDEPENDENCE
    total = product.sum(axis=1, keepdims=True)
    if kind is not SINGLE_LABEL:
        total = product + np.prod([1 - each for each in clipped], axis=0) ** INDEPENDENCE
    return np.asarray(product / total, np.float32)


def _report_part(progress: Progress, place: int, plans: int, done: int, total: int) -> None:
    progress(
        place * PROGRESS_PARTS + done * PROGRESS_PARTS // max(1, total), plans * PROGRESS_PARTS
    )


def _take_features(images: Images, net: TimmNet) -> Plan:
    recipe = fit_recipe(
        RECIPES["default"], _kept(images), FEATURES_SIDE_PX, images.kind, PRETRAINED_HOME
    )
    reason = f"a head on its features at {FEATURES_SIDE_PX} px"
    return Plan(net.net_name, net, recipe, FEATURES_SIDE_PX, reason)


def _train_small(images: Images, recipe: Recipe) -> Plan:
    side_px = min(images.shape[1:])
    if side_px < LEAST_CONVOLVED_PX:
        name, own, home = "mlp", load_recipe("mlp"), ZOO_HOME
    else:
        name, own, home = "cnn-s", recipe, HOME
    smaller = min(side_px, TRAINED_SIDE_PX)
    fitted = fit_recipe(own, _kept(images), smaller, images.kind, home)
    return Plan(
        name,
        load_net(name),
        fitted,
        smaller,
        f"from scratch, {fitted.epochs} epochs at {smaller} px",
    )


def _kept(images: Images) -> int:
    return len(images) * (FOLDS - 1) // FOLDS
