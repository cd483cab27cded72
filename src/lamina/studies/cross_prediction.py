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
from lamina.errors import DataError, plural
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
# Largest share of all images, and of a class, that a group kept in one fold may have: otherwise the
# fold would be too large, or its net would hardly see the class.
MOST_OF_ALL = 1 / FOLDS
MOST_OF_A_CLASS = 0.5
FEATURES_ALONE_IMAGES = 1_000  # up to which the features of a pretrained net suffice
FEATURES_IMAGES = 20_000  # up to which features help ``cnn-s``
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


@dataclass(frozen=True)
class CrossValidatedNet:
    """A net to train for each fold, or a pretrained net to fit a head to, with the recipe."""

    net_name: str
    net: Net | TimmNet
    recipe: Recipe
    side_px: int  # of the images
    reason: str

    def __str__(self) -> str:
        return f"{self.net_name} ({self.reason})"


@dataclass(frozen=True, eq=False)
class CrossPrediction:
    """Probabilities from nets not trained on the images; for ``others``, the mean over folds."""

    held_out: Float32[np.ndarray, "n k"] = field(repr=False)
    others: tuple[Float32[np.ndarray, "_ k"], ...] = field(default=(), repr=False)


def check_dealable(images: Images) -> None:
    """Raise ``DataError`` if targets are numbers, or images are too few for four folds."""
    check_kind(images.kind)
    if len(images) < 2 * FOLDS:
        raise DataError(
            f"The train split has {plural(len(images), 'image', 'images')}; label checking needs at"
            f" least {2 * FOLDS}. Add images, or check the labels yourself."
        )


def choose_nets(images: Images, pretrained: TimmNet | None) -> tuple[CrossValidatedNet, ...]:
    """The nets for ``images``, by their number and size; ``pretrained`` if it is available."""
    if pretrained is None or len(images) > FEATURES_IMAGES or images.shape[0] not in (1, 3):
        return (_train_small(images, RECIPE),)
    if len(images) <= FEATURES_ALONE_IMAGES:
        return (_take_features(images, pretrained),)
    return _take_features(images, pretrained), _train_small(images, BRIEF_RECIPE)


def _take_features(images: Images, net: TimmNet) -> CrossValidatedNet:
    recipe = fit_recipe(
        RECIPES["default"],
        _count_training_images(images),
        FEATURES_SIDE_PX,
        images.kind,
        PRETRAINED_HOME,
    )
    reason = f"a head on its features at {FEATURES_SIDE_PX} px"
    return CrossValidatedNet(net.net_name, net, recipe, FEATURES_SIDE_PX, reason)


def _train_small(images: Images, recipe: Recipe) -> CrossValidatedNet:
    name = "cnn-s"
    home = HOME
    if min(images.shape[1:]) < LEAST_CONVOLVED_PX:
        name = "mlp"
        home = ZOO_HOME
        recipe = load_recipe(name)
    side_px = min(*images.shape[1:], TRAINED_SIDE_PX)
    fitted = fit_recipe(recipe, _count_training_images(images), side_px, images.kind, home)
    reason = f"from scratch, {fitted.epochs} epochs at {side_px} px"
    return CrossValidatedNet(name, load_net(name), fitted, side_px, reason)


def _count_training_images(images: Images) -> int:
    return len(images) * (FOLDS - 1) // FOLDS


def limit_groups(images: Images, groups: Sequence[Hashable]) -> tuple[list[Hashable], int]:
    """The groups, with those too large for one fold divided, and the number of images in these."""
    # Pairs of near-duplicates, such as successive frames of a video, may form a chain through a
    # whole class. lamina divides it into the given groups and identical images, and those that are
    # still too large into single images.
    limited = list(groups)
    divided = _find_too_large(images, limited)
    part = images.take(divided)
    copies = group_copies(part.pixels, (), part.groups)
    for row, first_copy in zip(divided, copies, strict=True):
        limited[row] = ("identical", first_copy)
    for row in _find_too_large(images, limited):
        limited[row] = ("single", row)
    return limited, len(divided)


def _find_too_large(images: Images, groups: Sequence[Hashable]) -> list[int]:
    """The rows of the images in groups that are too large for one fold."""
    rows_of_groups: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of_groups.setdefault(group, []).append(row)
    totals = _count_targets(images, slice(None))
    too_large = []
    for rows in rows_of_groups.values():
        if len(rows) == 1:
            continue
        counts = _count_targets(images, rows)
        takes_a_class = ((counts > 1) & (counts > MOST_OF_A_CLASS * totals)).any()
        if takes_a_class or len(rows) > MOST_OF_ALL * len(groups):
            too_large += rows
    return too_large


def _count_targets(images: Images, rows: Sequence[int] | slice) -> Int64[np.ndarray, " k"]:
    """The number of images of each class, or with and without each label."""
    targets = images.targets[rows]
    if images.kind is SINGLE_LABEL:
        return np.bincount(targets, minlength=len(images.target_names))
    of_yes = targets.reshape(len(targets), -1).sum(axis=0)
    return np.concatenate([of_yes, len(targets) - of_yes])


def cross_predict(
    nets: Sequence[CrossValidatedNet],
    images: Images,
    others: Sequence[Images] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    progress: Progress | None = None,
) -> CrossPrediction:
    """Train on three of four folds, and predict the fourth and ``others``.

    The images of a group share a fold. Of several nets, this returns the product of their
    probabilities, which is better than their mean.
    """
    check_dealable(images)
    predictions = []
    for place, net in enumerate(nets):
        report = None
        if progress is not None:
            report = partial(_report_part, progress, place, len(nets))
        predictions.append(_cross_predict_by(net, images, others, groups, report))
    if len(predictions) == 1:
        return predictions[0]
    held_out = multiply([prediction.held_out for prediction in predictions], images.kind)
    of_others = zip(*(prediction.others for prediction in predictions), strict=True)
    return CrossPrediction(
        held_out, tuple(multiply(probabilities, images.kind) for probabilities in of_others)
    )


def _report_part(progress: Progress, place: int, nets: int, done: int, total: int) -> None:
    done_parts = done * PROGRESS_PARTS // max(1, total)
    progress(place * PROGRESS_PARTS + done_parts, nets * PROGRESS_PARTS)


def multiply(
    probabilities: Sequence[Float32[np.ndarray, "n k"]], kind: Kind
) -> Float32[np.ndarray, "n k"]:
    """The tempered, normalized product of nets' probabilities; for multi-label, label by label."""
    clipped = np.clip(np.stack(probabilities), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    product = clipped.prod(axis=0) ** INDEPENDENCE
    total = product.sum(axis=1, keepdims=True)
    if kind is not SINGLE_LABEL:
        total = product + (1 - clipped).prod(axis=0) ** INDEPENDENCE
    return np.asarray(product / total, np.float32)


def _cross_predict_by(
    net: CrossValidatedNet,
    images: Images,
    others: Sequence[Images],
    groups: Sequence[Hashable] | None,
    progress: Progress | None,
) -> CrossPrediction:
    splits = [resize_images(split, net.side_px) for split in (images, *others)]
    if groups is None:
        groups = group_copies(splits[0].pixels, (), images.groups)
    limited, _ = limit_groups(splits[0], groups)
    strata = images.kind.strata(images.targets)
    seed = derive_seed(net.recipe.seed, "folds")
    folds = np.array(deal(strata, limited, [1 / FOLDS] * FOLDS, seed))
    if isinstance(net.net, TimmNet):
        return _predict_by_heads(net.net, net.recipe, splits, folds, progress)
    return _predict_by_training(net.net, net.recipe, splits, folds, progress)


def _predict_by_training(
    net: Net,
    recipe: Recipe,
    splits: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    progress: Progress | None,
) -> CrossPrediction:
    """Train ``net`` without each fold of the first split."""
    images, *others = splits
    outputs = task_of(images).outputs
    held_out = np.empty((len(images), outputs), np.float32)
    sums = [np.zeros((len(split), outputs), np.float32) for split in others]
    for fold in range(FOLDS):
        seed = derive_seed(recipe.seed, "fold", fold)
        rest = images.take(np.flatnonzero(folds != fold))
        seeded = dataclasses.replace(recipe, seed=seed)
        training = Training(net.with_outputs(outputs), rest, seeded)
        steps = recipe.epochs * training.steps_per_epoch
        for _ in training:
            if progress is not None:
                progress(fold * steps + training.steps_done, FOLDS * steps)
        rows = np.flatnonzero(folds == fold)
        held_out[rows] = _predict_probabilities(training, images.pixels[rows])
        for place, split in enumerate(others):
            sums[place] += _predict_probabilities(training, split.pixels)
    return CrossPrediction(held_out, tuple(total / FOLDS for total in sums))


def _predict_by_heads(
    net: TimmNet,
    recipe: Recipe,
    splits: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    progress: Progress | None,
) -> CrossPrediction:
    """Fit a head to the features of ``net`` without each fold of the first split."""
    images = splits[0]
    task = task_of(images)
    device = choose_device(recipe.device).value
    module = net.module(images.shape, task.outputs)
    model = build_model(module, images, recipe).to(device)
    find_linear_head(model)  # rejects a net without one
    pixels = np.concatenate([split.pixels for split in splits])
    parts = features(model, pixels, progress).split([len(split) for split in splits])
    targets = torch.from_numpy(np.array(images.targets))
    places = torch.from_numpy(folds)
    few = torch.linspace(0, len(images) - 1, min(len(images), CHOOSING_IMAGES)).long()
    penalty = choose_penalty(parts[0][few], targets[few], places[few], task)
    fit = cross_fit(parts[0], targets, places, task, penalty)
    of_others = []
    for part in parts[1:]:
        of_heads = [task.probabilities(head.logits(part)) for head in fit.heads]
        of_others.append(torch.stack(of_heads).mean(dim=0).numpy())
    return CrossPrediction(task.probabilities(fit.logits).numpy(), tuple(of_others))


def _predict_probabilities(training: Training, pixels: np.ndarray) -> Float32[np.ndarray, "n k"]:
    logits = torch.from_numpy(training.predict_logits(pixels))
    return training.model.task.probabilities(logits).numpy()
