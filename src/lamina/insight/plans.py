"""How the nets that judge labels come about: by pretrained features, a small net from scratch, or both.

Measured with a fifth of the labels of CIFAR-10's training pictures flipped, in five classes (docs/measurements.md): of
500 pictures, features at 96 px find more wrong labels than ``cnn-s``, in less time; of 10,000, both together find
more than either. More pictures than that take ``cnn-s`` alone less time than features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32

from lamina.data import Images
from lamina.data.decoding import fit_pixels
from lamina.data.images import Progress
from lamina.insight.folds import FOLDS, CrossPrediction, cross_predict, cross_predict_features
from lamina.nets import Net
from lamina.targets import SINGLE_LABEL, Kind
from lamina.training.fit import PRETRAINED_HOME, ZOO_HOME, Home, fit_recipe
from lamina.training.pretrained import RECIPES, TimmNet
from lamina.training.recipe import Recipe
from lamina.zoo import LEAST_CONVOLVED_PX, load_net, load_recipe

FEATURES_ALONE_IMAGES, FEATURES_IMAGES = 1_000, 20_000
"""Up to how many pictures the features of a pretrained net serve alone, and with ``cnn-s``, if the net is at hand."""
FEATURES_SIDE_PX = 96
TRAINED_SIDE_PX = 64
"""Larger pictures are made as small as this to train on."""
HOME = Home(7_500, 32)
"""What the recipe for ``cnn-s`` was chosen on: three quarters of 10,000 pictures."""
RECIPE = dataclasses.replace(load_recipe("cnn-s"), epochs=5, batch_size=100, label_smoothing=0.0)
"""Without label smoothing the probabilities tell wrong labels from right ones better."""
BRIEF_RECIPE = dataclasses.replace(RECIPE, epochs=3, batch_size=125, grow_from_fraction=0.625)
"""Beside features, in two fifths of the time."""
INDEPENDENCE = 0.75
"""Exponent of each factor when probabilities are multiplied: 1 for independent witnesses, but these were told the same
labels."""


PROGRESS_PARTS = 1000
LEAST_PROBABILITY = 1e-6
"""So that no witness alone decides."""


@dataclass(frozen=True)
class Plan:
    """One way to make the nets of the folds.

    Attributes:
        net_name: of the net, for people.
        net: trained from scratch, or the pretrained one whose features are used.
        recipe: of the net, or of the head on the features.
        side_px: the size of the pictures.
        reason: for people, in a few words.
    """

    net_name: str
    net: Net | TimmNet
    recipe: Recipe
    side_px: int
    reason: str

    def __str__(self) -> str:
        return f"{self.net_name} ({self.reason})"


def choose_plans(images: Images, pretrained: TimmNet | None, seed: int = 0) -> tuple[Plan, ...]:
    """The plans for the number and size of ``images``; ``pretrained`` is a net at hand, if any.

    >>> from lamina.data import load_data
    >>> (plan,) = choose_plans(load_data("shapes").train, None)
    >>> str(plan)
    'cnn-s (from scratch, 5 epochs at 32 px)'
    """
    takes_features = pretrained is not None and len(images) <= FEATURES_IMAGES and images.shape[0] in (1, 3)
    if pretrained is None or not takes_features:
        return (_train_small(images, RECIPE, seed),)
    if len(images) <= FEATURES_ALONE_IMAGES:
        return (_take_features(images, pretrained, seed),)
    return _take_features(images, pretrained, seed), _train_small(images, BRIEF_RECIPE, seed)


def predict_by(
    plans: Sequence[Plan],
    images: Images,
    others: Sequence[Images] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> CrossPrediction:
    """The probabilities of all plans together, each by :func:`cross_predict` or :func:`cross_predict_features`.

    They are multiplied, as those of witnesses: this finds more wrong labels than their mean. The arguments
    are those of :func:`cross_predict`; ``progress`` is called with (parts done, all parts).
    """
    predictions = []
    for place, plan in enumerate(plans):
        report = None if progress is None else partial(_report_part, progress, place, len(plans))
        own, *rest = (_resize(each, plan.side_px) for each in (images, *others))
        if isinstance(plan.net, TimmNet):
            prediction = cross_predict_features(
                own, rest, net=plan.net, recipe=plan.recipe, groups=groups, device=device, progress=report
            )
        else:
            prediction = cross_predict(
                own, rest, net=plan.net, recipe=plan.recipe, groups=groups, device=device, progress=report
            )
        predictions.append(prediction)
    if len(predictions) == 1:
        return predictions[0]
    others_of = zip(*(prediction.others for prediction in predictions), strict=True)
    return CrossPrediction(
        multiply([prediction.own for prediction in predictions], images.kind),
        tuple(multiply(each, images.kind) for each in others_of),
    )


def multiply(probabilities: Sequence[Float32[np.ndarray, "n k"]], kind: Kind) -> Float32[np.ndarray, "n k"]:
    """The product of several witnesses' probabilities, tempered and normalized; of each label, or of yes, by itself.

    >>> multiply([np.float32([[0.8, 0.2]]), np.float32([[0.5, 0.5]])], SINGLE_LABEL).round(2)
    array([[0.74, 0.26]], dtype=float32)
    """
    clipped = [np.clip(each, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY) for each in probabilities]
    product = np.prod(clipped, axis=0) ** INDEPENDENCE
    total = product.sum(axis=1, keepdims=True)
    if kind is not SINGLE_LABEL:
        total = product + np.prod([1 - each for each in clipped], axis=0) ** INDEPENDENCE
    return np.asarray(product / total, np.float32)


def _report_part(progress: Progress, place: int, plans: int, done: int, total: int) -> None:
    progress(place * PROGRESS_PARTS + done * PROGRESS_PARTS // max(1, total), plans * PROGRESS_PARTS)


def _take_features(images: Images, net: TimmNet, seed: int) -> Plan:
    recipe = fit_recipe(RECIPES["frozen"], _kept(images), FEATURES_SIDE_PX, images.kind, PRETRAINED_HOME)
    reason = f"a head on its features at {FEATURES_SIDE_PX} px"
    return Plan(net.net_name, net, dataclasses.replace(recipe, seed=seed), FEATURES_SIDE_PX, reason)


def _train_small(images: Images, recipe: Recipe, seed: int) -> Plan:
    side_px = min(images.shape[1:])
    if side_px < LEAST_CONVOLVED_PX:
        name, own, home = "mlp", load_recipe("mlp"), ZOO_HOME
    else:
        name, own, home = "cnn-s", recipe, HOME
    smaller = min(side_px, TRAINED_SIDE_PX)
    fitted = dataclasses.replace(fit_recipe(own, _kept(images), smaller, images.kind, home), seed=seed)
    return Plan(name, load_net(name), fitted, smaller, f"from scratch, {fitted.epochs} epochs at {smaller} px")


def _kept(images: Images) -> int:
    """How many of the images are in a training."""
    return len(images) * (FOLDS - 1) // FOLDS


def _resize(images: Images, side_px: int) -> Images:
    if min(images.shape[1:]) == side_px:
        return images
    return dataclasses.replace(images, pixels=fit_pixels(images.pixels, side_px), original_sizes_px=None)
