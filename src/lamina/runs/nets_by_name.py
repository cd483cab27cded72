"""Nets by name, with their recipes: from the zoo, from timm, or layers as Python text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lamina import zoo
from lamina.data import Dataset, Images
from lamina.data.detail import find_detail_px
from lamina.errors import NetError, suggest
from lamina.nets import Net, Shape, parse_net
from lamina.training.recipe import PRETRAINED_HOME, ZOO_HOME, Home, Recipe, fit_recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.runs.record import OwnModule
    from lamina.training.pretrained import TimmNet

SIDES_PX = (32, 48, 64)
"""Image sizes to consider for the nets of ``LADDER``."""
PHOTO_SIDES_PX = (96, 128, 160, 192, 224)
"""Image sizes to consider for the nets of ``PHOTO_LADDER``, if the images have that much detail."""
LEAST_SIDE_PX = 16
"""Smaller images are enlarged to this size, because ``LADDER`` nets halve the size three times."""
QUICKEST = "mlp"
"""The net for images that are too small for convolutions, and for very short time limits."""
TIMM = "timm:"
"""Prefix of names of timm nets."""


@dataclass(frozen=True)
class NetChoice:
    """A net to train, with its recipes."""

    name: str  # in tables and in names of runs
    # the module for an image shape and outputs
    net: Net | Callable[[Shape, int], Net | nn.Module] = field(repr=False)
    recipes: dict[str, Recipe] = field(default_factory=lambda: {"default": Recipe()}, repr=False)
    origin: OwnModule | TimmNet | None = None  # if the net is not a plain ``Net``
    home: Home = field(default=ZOO_HOME, repr=False)  # the images that the recipes were tuned on

    def fit(self, recipe_name: str | None, images: Images) -> Recipe:
        """The named or first recipe, fitted to the images unless it is the published recipe."""
        recipe = zoo.choose_recipe(self.name, self.recipes, recipe_name)
        if recipe_name == zoo.PUBLISHED:
            return recipe
        side_px = min(images.shape[1:])
        return fit_recipe(recipe, len(images), side_px, images.kind, self.home)

    def make(self, seed: int, shape: Shape, outputs: int) -> Net | nn.Module:
        """The net, or a module for this shape and number of logits, with weights from ``seed``."""
        if isinstance(self.net, Net):
            return self.net
        return draw_module(self.net, seed, shape, outputs)


def draw_module(
    make: Callable[[Shape, int], Net | nn.Module], seed: int, shape: Shape, outputs: int
) -> Net | nn.Module:
    """Call ``make`` with weights drawn from the seed of a recipe."""
    import torch

    from lamina.training.randomness import derive_seed, seeded

    with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
        return make(shape, outputs)


def find_net(
    text: str, weights: str | None = None, report: Callable[[str], None] = lambda _: None
) -> NetChoice:
    """Find a zoo net or ``timm:NAME``, or parse layers; reports a download before it starts."""
    if text.startswith(TIMM):
        from lamina.training.pretrained import open_timm_net

        return choice_of_timm(open_timm_net(text.removeprefix(TIMM), weights, report))
    if text in zoo.NAMES:
        return NetChoice(text, zoo.load_net(text), zoo.load_recipes(text))
    if "(" in text:
        return NetChoice("net", parse_net(text), {"default": Recipe()})
    name, *settings = re.split("[:,]", text)
    if name in zoo.NAMES:
        options = [
            f"--{setting.replace('=', ' ')}" if "=" in setting else f"--recipe {setting}"
            for setting in settings
        ]
        raise NetError(
            f"{text!r} is a net with a recipe or settings. Here they are options of the command, or"
            f" arguments in Python: {name} {' '.join(options)}"
        )
    raise NetError(
        f"There is no net {text!r} in the zoo. {suggest(text, zoo.NAMES)} Or use layers, such as"
        ' "Flatten(), Linear(200), ReLU(), Output()", or on the command line a .py file.'
    )


def describe_net(name: str) -> str:
    """The name of a net in words.

    >>> describe_net("timm:tf_efficientnet_lite0.in1k")
    'EfficientNet Lite0'
    """
    if not name.startswith(TIMM):
        return name
    words = name.removeprefix(TIMM).removeprefix("tf_").partition(".")[0].split("_")
    return " ".join(word.capitalize().replace("net", "Net") for word in words)


def choice_of_timm(net: TimmNet) -> NetChoice:
    from lamina.training.pretrained import FRESH_RECIPES, NONE, RECIPES

    if net.weights == NONE:
        return NetChoice(net.net_name, net.module, FRESH_RECIPES, net)
    return NetChoice(net.net_name, net.module, RECIPES, net, PRETRAINED_HOME)


def find_own_side(dataset: Dataset) -> int:
    """The images' side in pixels before lamina resized them; the median if sizes differ."""
    sizes = dataset.train.original_sizes_px
    if dataset.size_px is not None and sizes is not None:
        return int(np.median(sizes.min(axis=1)))
    return min(dataset.train.shape[1:])


def find_sides(dataset: Dataset) -> tuple[int, ...]:
    """The image sizes to consider, ascending, up to the originals' size and detail."""
    images = dataset.train
    _, height, width = images.shape
    limit = find_own_side(dataset)
    has_originals = dataset.size_px is not None and images.original_sizes_px is not None
    if not has_originals and height == width:
        limit = find_detail_px(images, (*SIDES_PX, *PHOTO_SIDES_PX)) or height
    elif not has_originals and limit < PHOTO_SIDES_PX[0]:
        return (max(limit, LEAST_SIDE_PX),)  # small rectangular images keep their size
    limit = max(limit, LEAST_SIDE_PX)
    if limit >= PHOTO_SIDES_PX[0]:
        return tuple(side for side in PHOTO_SIDES_PX if side <= limit)
    return (*(side for side in SIDES_PX if side < limit), limit)


def choose_by_images(dataset: Dataset) -> str:
    """Choose a zoo net by image size and detail, without timing any."""
    side_px = min(dataset.train.shape[1:])
    if side_px < zoo.LEAST_CONVOLVED_PX:
        return QUICKEST
    is_detailed = side_px >= SIDES_PX[-1] and find_sides(dataset)[0] >= PHOTO_SIDES_PX[0]
    return zoo.PHOTO_LADDER[0] if is_detailed else zoo.LADDER[0]
