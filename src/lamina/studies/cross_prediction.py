"""Cross-validation over four folds: probabilities from nets that were not trained on the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

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

Probabilities: TypeAlias = Float32[np.ndarray, "_ k"]
FOLDS = 4
# Largest share of all images, and of a class, that a group kept in one fold may have: otherwise the
# fold would be too large, or its net would hardly see the class.
MOST_OF_ALL = 1 / FOLDS
MOST_OF_A_CLASS = 0.5
FEATURES_ALONE_IMAGES = 1_000  # up to this number, features of a pretrained net suffice
FEATURES_IMAGES = 20_000  # up to this number, features help ``cnn-s``
FEATURES_SIDE_PX = 96
TRAINED_SIDE_PX = 64  # at most
# the recipe for ``cnn-s`` was chosen on this: three quarters of 10,000 images
HOME = Home(7_500, 32)
# Without label smoothing, the probabilities separate incorrect labels from correct ones better.
RECIPE = dataclasses.replace(load_recipe("cnn-s"), epochs=5, batch_size=100, label_smoothing=0.0)
# Trained in addition to features, in two fifths of the time.
BRIEF_RECIPE = dataclasses.replace(RECIPE, epochs=3, batch_size=125, start_size_fraction=0.625)
INDEPENDENCE = 0.75
"""Exponent of the factors when probabilities are multiplied: below 1, because all nets learned the
given labels."""
LEAST_PROBABILITY = 1e-6  # keeps a single net from deciding


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

    held_out: Probabilities = field(repr=False)
    others: tuple[Probabilities, ...] = field(default=(), repr=False)


def choose_nets(images: Images, pretrained: TimmNet | None) -> tuple[CrossValidatedNet, ...]:
    """The nets for ``images``, by their number and size; ``pretrained`` if it is available.

    ``DataError`` if targets are numbers, or images are too few for four folds.
    """
    check_kind(images.kind)
    if len(images) < 2 * FOLDS:
        raise DataError(
            f"The train split has {plural(len(images), 'image', 'images')}; label checking needs at"
            f" least {2 * FOLDS}. Add images, or check the labels yourself."
        )
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
    reason = f"from random weights, {fitted.epochs} epochs at {side_px} px"
    return CrossValidatedNet(name, load_net(name), fitted, side_px, reason)


def _count_training_images(images: Images) -> int:
    return len(images) * (FOLDS - 1) // FOLDS


def limit_groups(images: Images, groups: Sequence[Hashable]) -> tuple[list[Hashable], int]:
    """Divide the groups that are too large for one fold, and count the images in them."""
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
    # a column for each class, or with and without each label
    if images.kind is SINGLE_LABEL:
        columns = images.targets[:, None] == np.arange(len(images.target_names))
    else:
        labels = images.targets.reshape(len(images), -1)
        columns = np.concatenate([labels, ~labels], axis=1)
    totals = columns.sum(axis=0)
    too_large = []
    for rows in rows_of_groups.values():
        if len(rows) == 1:
            continue
        counts = columns[rows].sum(axis=0)
        takes_a_class = ((counts > 1) & (counts > MOST_OF_A_CLASS * totals)).any()
        if takes_a_class or len(rows) > MOST_OF_ALL * len(groups):
            too_large += rows
    return too_large


def cross_predict(
    nets: Sequence[CrossValidatedNet],
    images: Images,
    others: Sequence[Images] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    progress: Progress | None = None,
) -> CrossPrediction:
    """Train on three of four folds, and predict the fourth and ``others``.

    The images of a group share a fold. With several nets, this returns the product of their
    probabilities, which is more accurate than their mean.
    """
    predictions = [_cross_predict_by(net, images, others, groups, progress) for net in nets]
    held_out, *means = predictions[0]
    if len(nets) > 1:
        held_out, *means = [
            multiply(parts, images.kind) for parts in zip(*predictions, strict=True)
        ]
    return CrossPrediction(held_out, tuple(means))


def multiply(probabilities: Sequence[Probabilities], kind: Kind) -> Probabilities:
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
) -> list[Probabilities]:
    """The probabilities of the images by the nets of other folds, and means for ``others``."""
    splits = [resize_images(split, net.side_px) for split in (images, *others)]
    if groups is None:
        groups = group_copies(splits[0].pixels, (), images.groups)
    limited, _ = limit_groups(splits[0], groups)
    strata = images.kind.strata(images.targets)
    seed = derive_seed(net.recipe.seed, "folds")
    folds = np.array(deal(strata, limited, [1 / FOLDS] * FOLDS, seed))
    fit = _fit_heads if isinstance(net.net, TimmNet) else _train_nets
    task = task_of(images)
    shapes = [(len(split), task.outputs) for split in splits]
    held_out, *sums = [np.zeros(shape, np.float32) for shape in shapes]
    for fold, logits in enumerate(fit(net, splits, folds, progress)):
        of_fold, *of_others = [task.probabilities(part).numpy() for part in logits]
        held_out[folds == fold] = of_fold
        for total, probabilities in zip(sums, of_others, strict=True):
            total += probabilities
    return [held_out, *(total / FOLDS for total in sums)]


def _train_nets(
    net: CrossValidatedNet,
    splits: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    progress: Progress | None,
) -> Iterator[list[Tensor]]:
    """Train the net without each fold; yields logits of the fold and of the other splits."""
    images, *others = splits
    outputs = task_of(images).outputs
    for fold in range(FOLDS):
        rest = images.take(np.flatnonzero(folds != fold))
        recipe = dataclasses.replace(net.recipe, seed=derive_seed(net.recipe.seed, "fold", fold))
        training = Training(cast(Net, net.net).with_outputs(outputs), rest, recipe)
        steps = recipe.epochs * training.steps_per_epoch
        for _ in training:
            if progress is not None:
                progress(fold * steps + training.steps_done, FOLDS * steps)
        predicted = [images.pixels[folds == fold], *(split.pixels for split in others)]
        yield [torch.from_numpy(training.predict_logits(pixels)) for pixels in predicted]


def _fit_heads(
    net: CrossValidatedNet,
    splits: Sequence[Images],
    folds: Int64[np.ndarray, " n"],
    progress: Progress | None,
) -> Iterator[list[Tensor]]:
    """Like :func:`_train_nets`, but fit a head to the features of the net."""
    images = splits[0]
    task = task_of(images)
    device = choose_device(net.recipe.device).value
    module = cast(TimmNet, net.net).module(images.shape, task.outputs)
    model = build_model(module, images, net.recipe).to(device)
    find_linear_head(model)  # rejects a net without one
    pixels = np.concatenate([split.pixels for split in splits])
    fitted, *others = features(model, pixels, progress).split([len(split) for split in splits])
    targets = torch.from_numpy(np.array(images.targets))
    places = torch.from_numpy(folds)
    few = torch.linspace(0, len(images) - 1, min(len(images), CHOOSING_IMAGES)).long()
    penalty = choose_penalty(fitted[few], targets[few], places[few], task)
    for fold, head in enumerate(cross_fit(fitted, targets, places, task, penalty).heads):
        yield [head.logits(part) for part in (fitted[places == fold], *others)]
