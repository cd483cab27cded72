"""How the nets that judge labels come about: pretrained features for few pictures, else a small net from scratch.

Measured with a fifth of the labels of CIFAR-10's training pictures flipped, in five classes (docs/measurements.md):
features of pictures at 96 px find more of the wrong labels than ``cnn-s`` up to 10,000 pictures, in less time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lamina.data import Images
from lamina.data.decoding import fit_pixels
from lamina.data.images import Progress
from lamina.insight.folds import FOLDS, CrossPrediction, cross_predict, cross_predict_features
from lamina.nets import Net
from lamina.training.fit import PRETRAINED_HOME, Home, fit_recipe
from lamina.training.pretrained import RECIPES, TimmNet
from lamina.training.recipe import Recipe
from lamina.zoo import load_net, load_recipe

FEATURES_IMAGES = 10_000
"""Up to this many pictures the features of a pretrained net are used, if it is at hand."""
FEATURES_SIDE_PX = 96
TRAINED_SIDE_PX = 64
"""Larger pictures are made as small as this to train on."""
LEAST_CONVOLVED_PX = 12
"""Pictures smaller than this are too small for the convolutions of ``cnn-s``."""
HOME = Home(7_500, 32)
"""What the recipe for ``cnn-s`` was chosen on: three quarters of 10,000 pictures."""
RECIPE = dataclasses.replace(load_recipe("cnn-s"), epochs=5, batch_size=100)


@dataclass(frozen=True)
class Plan:
    """How the nets of the folds are made, with the reason, in a line."""

    net_name: str
    net: Net | TimmNet
    recipe: Recipe
    side_px: int
    reason: str

    def predict(
        self,
        images: Images,
        others: Sequence[Images] = (),
        *,
        groups: Sequence[Hashable] | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> CrossPrediction:
        """The probabilities of ``images`` and ``others``, made as large as the plan says."""
        own, *rest = (_resize(each, self.side_px) for each in (images, *others))
        if isinstance(self.net, TimmNet):
            return cross_predict_features(own, rest, net=self.net, recipe=self.recipe, groups=groups, progress=progress)
        return cross_predict(
            own, rest, net=self.net, recipe=self.recipe, groups=groups, device=device, progress=progress
        )


def choose_plan(images: Images, pretrained: TimmNet | None, seed: int = 0) -> Plan:
    """The plan for the number and size of ``images``; ``pretrained`` is a net at hand, if any.

    >>> from lamina.data import load_data
    >>> plan = choose_plan(load_data("shapes").train, None)
    >>> plan.net_name, plan.side_px, plan.recipe.epochs
    ('cnn-s', 32, 5)
    """
    count, side_px = len(images) * (FOLDS - 1) // FOLDS, min(images.shape[1:])
    if pretrained is not None and len(images) <= FEATURES_IMAGES and images.shape[0] in (1, 3):
        recipe = fit_recipe(RECIPES["frozen"], count, FEATURES_SIDE_PX, images.kind, PRETRAINED_HOME)
        reason = f"a head on its features at {FEATURES_SIDE_PX} px, as there are at most {FEATURES_IMAGES:,} pictures"
        return Plan(pretrained.net_name, pretrained, _seed(recipe, seed), FEATURES_SIDE_PX, reason)
    if side_px < LEAST_CONVOLVED_PX:
        recipe = fit_recipe(load_recipe("mlp"), count, side_px, images.kind)
        return Plan("mlp", load_net("mlp"), _seed(recipe, seed), side_px, f"for pictures below {LEAST_CONVOLVED_PX} px")
    smaller = TRAINED_SIDE_PX if side_px > TRAINED_SIDE_PX else side_px
    recipe = fit_recipe(RECIPE, count, smaller, images.kind, HOME)
    reason = f"from scratch, {recipe.epochs} epochs at {smaller} px"
    return Plan("cnn-s", load_net("cnn-s"), _seed(recipe, seed), smaller, reason)


def _seed(recipe: Recipe, seed: int) -> Recipe:
    return dataclasses.replace(recipe, seed=seed)


def _resize(images: Images, side_px: int) -> Images:
    if min(images.shape[1:]) == side_px:
        return images
    return dataclasses.replace(images, pixels=fit_pixels(images.pixels, side_px), original_sizes_px=None)
