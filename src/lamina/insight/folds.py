"""Probabilities for pictures from nets that were not trained on them: cross-validation.

The pictures are dealt to four folds; for each, a net is trained on the other three. Identical pictures are in one fold,
or else a net would have been told the label of a picture's copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64

from lamina.data import Images
from lamina.data.duplicates import digest_rows
from lamina.data.images import Progress
from lamina.errors import DataError
from lamina.insight.labels import check_kind
from lamina.nets import Net
from lamina.targets import SINGLE_LABEL
from lamina.training.device import choose_device
from lamina.training.events import Epoch, Step
from lamina.training.features import features
from lamina.training.head import IMAGES_AT_ONCE, choose_penalty, has_linear_head
from lamina.training.loop import Training
from lamina.training.model import build_model
from lamina.training.pretrained import TimmNet
from lamina.training.randomness import derive_seed
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

FOLDS = 4
MOST_OF_ALL, MOST_OF_A_CLASS = 1 / FOLDS, 0.5
"""A group with a larger share is not kept in one fold: it would be too large, or its net would hardly see the class."""
STEPS_PER_RECORD = 10


@dataclass(frozen=True, eq=False)
class CrossPrediction:
    """Probabilities from nets that were not trained on the picture.

    Attributes:
        own: of the pictures that the nets were trained on, from the one net that lacked them.
        others: of pictures that no net was trained on, the mean over all nets; an array for each of the images given.
    """

    own: Float32[np.ndarray, "n k"]
    others: tuple[Float32[np.ndarray, "_ k"], ...] = ()


def check_dealable(images: Images) -> None:
    """Raise ``DataError`` if the targets are numbers, or if there are too few pictures for four folds."""
    check_kind(images.kind)
    if len(images) < 2 * FOLDS:
        raise DataError(
            f"Expected at least {2 * FOLDS} training pictures to find wrong labels among, got {len(images)}. "
            "Look at each of them yourself, or add some."
        )


def draw_folds(
    strata: Sequence[object], groups: Sequence[Hashable], folds: int = FOLDS, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """The fold of each picture: groups stay together, and each stratum is spread over all folds.

    Groups come in random order, the large ones first; each goes to the fold with the fewest pictures of its stratum.

    >>> draw_folds([0, 0, 0, 0, 1, 1, 1, 1], ["a", "a", *"bcdefg"], folds=2).tolist()
    [0, 0, 1, 1, 0, 1, 0, 1]
    """
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    listed = list(members.values())
    order = np.random.default_rng(seed).permutation(len(listed)).tolist()
    order.sort(key=lambda place: -len(listed[place]))
    total = [0] * folds
    counts: dict[object, list[int]] = {}
    found = np.empty(len(groups), np.int64)
    for group in order:
        rows = listed[group]
        own = counts.setdefault(strata[rows[0]], [0] * folds)
        _, _, fold = min(zip(own, total, range(folds), strict=True))
        own[fold] += len(rows)
        total[fold] += len(rows)
        found[rows] = fold
    return found


def limit_groups(images: Images, groups: Sequence[Hashable]) -> tuple[list[Hashable], int]:
    """The groups, with those too large for one fold divided, and how many pictures are in these.

    Pictures that are alike two by two may form a chain that takes in a whole class, such as icons or the frames of a
    film. A group of more than a quarter of all pictures, or with two or more that are over half of a class, or of a
    label's yes or no, is divided into identical pictures; where these are too many as well, into single ones.

    >>> images = Images.from_arrays(np.arange(8, dtype=np.uint8).reshape(8, 1, 1), [0, 0, 0, 1, 1, 1, 1, 1])
    >>> groups, divided = limit_groups(images, ["a", "a", "b", "c", "c", "d", "e", "f"])
    >>> groups[3:], len(set(groups[:3])), divided
    (['c', 'c', 'd', 'e', 'f'], 3, 2)
    """
    found = list(groups)
    divided = _find_too_large(images, found)
    for row, digest in zip(divided, digest_rows(images.pixels[divided]), strict=True):
        found[row] = ("identical", digest)
    for row in _find_too_large(images, found):
        found[row] = ("single", row)
    return found, len(divided)


def _find_too_large(images: Images, groups: Sequence[Hashable]) -> list[int]:
    """The rows of the pictures in groups that are too large for one fold."""

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
    net: Net,
    recipe: Recipe,
    groups: Sequence[Hashable] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> CrossPrediction:
    """Train ``net`` from scratch once for each fold, and predict what it was not trained on.

    Args:
        images: with classes or labels.
        others: pictures of the same kind that nothing is trained on.
        net: with or without the number of its outputs.
        recipe: for three quarters of the images; its seed also draws the folds.
        groups: pictures with the same value are in one fold, within :func:`limit_groups`; by default those with
            identical pixels.
        device: as for :class:`~lamina.training.loop.Training`.
        progress: called with (steps done, all steps).

    Raises:
        DataError: the targets are numbers, or there are fewer pictures than folds.
    """
    folds = _deal(images, groups, recipe.seed)
    task = task_of(images)
    own = np.empty((len(images), task.outputs), np.float32)
    sums = [np.zeros((len(each), task.outputs), np.float32) for each in others]
    for fold in range(FOLDS):
        held = np.flatnonzero(folds == fold)
        seeded = dataclasses.replace(recipe, seed=derive_seed(recipe.seed, "fold", fold))
        kept = images.take(np.flatnonzero(folds != fold))
        training = Training(
            net.with_outputs(task.outputs), kept, seeded, device=device, steps_per_record=STEPS_PER_RECORD
        )
        steps = training.steps_per_epoch
        for event in training:
            if progress is not None and isinstance(event, Step | Epoch):
                within = event.epoch * steps if isinstance(event, Epoch) else (event.epoch - 1) * steps + event.step
                progress(fold * recipe.epochs * steps + within, FOLDS * recipe.epochs * steps)
        own[held] = _to_probabilities(training, images.pixels[held])
        for sum_, each in zip(sums, others, strict=True):
            sum_ += _to_probabilities(training, each.pixels)
    return CrossPrediction(own, tuple(sum_ / FOLDS for sum_ in sums))


def cross_predict_features(
    images: Images,
    others: Sequence[Images] = (),
    *,
    net: TimmNet,
    recipe: Recipe,
    groups: Sequence[Hashable] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> CrossPrediction:
    """The same with a linear head on the features of a pretrained net, which are computed once for all folds.

    The arguments are those of :func:`cross_predict`; ``progress`` is called with (pictures done, all).

    Raises:
        DataError: as for :func:`cross_predict`.
        NetError: the weights are missing, or the net has two heads.
    """
    folds = torch.from_numpy(_deal(images, groups, recipe.seed))
    task = task_of(images)
    place = choose_device(device).value
    model = build_model(net.module(images.shape, task.outputs), images, recipe).to(place)
    if not has_linear_head(model.body):
        raise DataError(f"Expected a pretrained net with one linear head, got {net.net_name}, which has another.")
    pixels = np.concatenate([each.pixels for each in (images, *others)])
    first, *rest = features(model, pixels, progress, IMAGES_AT_ONCE).split([len(images), *map(len, others)])
    best, heads = choose_penalty(first, torch.from_numpy(np.array(images.targets)), folds, task, recipe)
    own = torch.empty(len(images), task.outputs)
    for fold, head in enumerate(heads):
        own[folds == fold] = task.probabilities(head.logits(first[folds == fold])[best])
    means = [torch.stack([task.probabilities(head.logits(each)[best]) for head in heads]).mean(dim=0) for each in rest]
    return CrossPrediction(own.numpy(), tuple(mean.numpy() for mean in means))


def _deal(images: Images, groups: Sequence[Hashable] | None, seed: int) -> Int64[np.ndarray, " n"]:
    check_dealable(images)
    limited, _ = limit_groups(images, digest_rows(images.pixels) if groups is None else groups)
    return draw_folds(images.kind.strata(images.targets), limited, seed=derive_seed(seed, "folds"))


def _to_probabilities(training: Training, pixels: np.ndarray) -> Float32[np.ndarray, "n k"]:
    logits = torch.from_numpy(training.predict_logits(pixels))
    return training.model.task.probabilities(logits).numpy()
