"""Predefined nets with their training recipes and measured results.

To add a net, add an entry to ``NETS``. Parameters are for images of 3×32×32 and ten classes.
Accuracies are for the JPEG copy of CIFAR-10, with torch 2.13, in November 2026; seconds are the
time of training. AVX-512 is two cores of an AMD EPYC with AVX-512, AMX two cores of an Intel Xeon
with AMX, both in bf16 unless noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lamina.errors import NetError, RecipeError, check_type, suggest
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalMaxPool,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Whiten,
)
from lamina.training.recipe import Recipe

LADDER: tuple[str, ...] = ("cnn-s", "cnn-m", "cnn-l")
"""The nets that ``lamina train`` chooses from, from the fastest to the most accurate."""
# for images that need more than 64 px
PHOTO_LADDER: tuple[str, ...] = ("photo-s", "photo-m", "photo-l")
LEAST_CONVOLVED_PX = 12
"""Smallest image side for convolutional nets: below it, at most one pixel reaches the last block of
``cnn-s``."""
PUBLISHED = "article"
"""Name of the recipes that reproduce a published result: requested by name, they are not adapted
and use no ``val``."""
ARTICLE = "Deep Learning Basics, 22 January 2024"


@dataclass(frozen=True)
class Published:
    """The published test accuracy of a net with its recipe ``article``."""

    accuracy: float  # from 0 to 1
    data: str  # name of the data set
    source: str


@dataclass(frozen=True)
class ZooNet:
    """A net of the zoo; the first recipe is the default."""

    meaning: str
    net: Net
    recipes: dict[str, Recipe]
    published: Published | None = None


def stack_blocks(*widths: int) -> Net:
    """Whitening, a block of two convolutions per width, which halves the size, and the output."""
    blocks = (layer for width in widths for layer in block(width))
    return Net(Whiten(2), ReLU(), *blocks, GlobalMaxPool(), Output())


def stack_photo_blocks(*widths: int) -> Net:
    """The net of ``stack_blocks`` at a quarter of the image side; images have at least 32 px."""
    whitening = (Whiten(2, stride=2), ReLU())
    reduction = Conv2d(widths[0], kernel_size=3, stride=2, padding=1, bias=False)
    blocks = (layer for width in widths for layer in block(width))
    return Net(*whitening, reduction, BatchNorm(), ReLU(), *blocks, GlobalMaxPool(), Output())


def block(width: int) -> tuple[Layer, ...]:
    """Two convolutions with batch norm and ReLU, and a max pool after the first convolution."""
    convolution = Conv2d(width, kernel_size=3, padding="same", bias=False)
    return (convolution, MaxPool2d(2), BatchNorm(), ReLU(), convolution, BatchNorm(), ReLU())


MUON = Recipe(
    epochs=10,
    batch_size=500,
    optimizer="muon",
    lr=0.06,
    momentum=0.6,
    schedule="trapezoid",
    label_smoothing=0.1,
    flip="alternating",
    translate_px=2,
    normalization="channel",
)
EIGHT_EPOCHS = {"best": replace(MUON, epochs=8)}

NETS: dict[str, ZooNet] = {
    # 308,310 parameters. 50.36 % (49.14 to 51.57), 3 runs, 8.3 s on two cores of an AMD EPYC
    # without bf16, 3.6 s with AMX, both in fp32; in bf16 50.17 %, median of 3 runs, 3.5 s with
    # AVX-512.
    "mlp": ZooNet(
        "The article's MLP: the flattened image and a hidden layer of 100 units.",
        Net(Flatten(), Linear(100), ReLU(), Output()),
        {"article": Recipe(epochs=5, batch_size=100, optimizer="adam", lr=1e-3)},
        Published(accuracy=0.4996, data="cifar10", source=ARTICLE),
    ),
    # 1,971,210 parameters. 67.99 ± 0.52 %, 3 runs, 231 s with AVX-512.
    "mlp-l": ZooNet(
        "A larger MLP of three hidden layers with batch norm, for Muon, flips and translation.",
        Net(
            Flatten(),
            Linear(512, bias=False),
            BatchNorm(),
            ReLU(),
            Linear(512, bias=False),
            BatchNorm(),
            ReLU(),
            Linear(256, bias=False),
            BatchNorm(),
            ReLU(),
            Output(),
        ),
        {
            "best": replace(
                MUON,
                epochs=45,
                batch_size=1000,
                lr=0.02,
                momentum=0.9,
                weight_decay=0.1,
                schedule="linear",
                warmup_fraction=0.1,
                translate_px=4,
            )
        },
    ),
    # 591,914 parameters. ``article`` 74.56 % (72.88 to 76.24), 3 runs, 483 s on two cores of an AMD
    # EPYC in fp32; ``best`` 85.38 %, 1 run, 315 s with AMX; 85.31 ± 0.91 %, 3 runs, 442 s with
    # AVX-512. Without ``--recipe``, lamina also uses ``article``, but adapts its epochs and batch
    # size to the images and may set aside ``val``, so the result can differ.
    "cnn": ZooNet(
        "The article's CNN: four convolutions, two with stride 2, and a hidden layer of 128 units.",
        Net(
            Conv2d(32, kernel_size=3, stride=1, padding=1),
            BatchNorm(),
            LeakyReLU(),
            Conv2d(32, kernel_size=3, stride=2, padding=1),
            BatchNorm(),
            LeakyReLU(),
            Conv2d(64, kernel_size=3, stride=1, padding=1),
            BatchNorm(),
            LeakyReLU(),
            Conv2d(64, kernel_size=3, stride=2, padding=1),
            BatchNorm(),
            LeakyReLU(),
            Flatten(),
            Linear(128),
            BatchNorm(),
            LeakyReLU(),
            Dropout(0.5),
            Output(),
        ),
        {
            "article": Recipe(epochs=10, batch_size=100, optimizer="adam", lr=1e-3),
            "best": replace(
                MUON,
                epochs=25,
                batch_size=250,
                lr=0.05,
                weight_decay=0.05,
                schedule="linear",
                warmup_fraction=0.2,
                dropout=0.2,
            ),
        },
        Published(accuracy=0.7552, data="cifar10", source=ARTICLE),
    ),
    # A narrower version, with ReLU, of the net in Jordan, 94 % on CIFAR-10 in 3.29 seconds on a
    # single GPU, arXiv 2404.00498. 146,754 parameters. With a linear schedule: ``best`` 85.18 %, 1
    # run, 97 s with AMX; ``quick`` 78.32 ± 0.54 %, 3 runs, 31 s with AVX-512. With trapezoid,
    # ``best`` was 1.3 points better on 5,000 training images (2 seeds), and ``quick`` 0.3 points
    # worse on 40,000. 17.1 million multiply-adds per image of 32 px, 169.5 million of 96 px.
    "cnn-s": ZooNet(
        "The ladder's smallest CNN: 2×2 whitening, and three blocks of two convolutions.",
        stack_blocks(32, 64, 64),
        {"best": MUON, "quick": replace(MUON, epochs=2, start_size_fraction=0.625)},
    ),
    # 569,666 parameters. 87.49 %, 1 run, 379 s with AVX-512.
    "cnn-m": ZooNet(
        "The medium CNN of the ladder: cnn-s with more channels.",
        stack_blocks(64, 128, 128),
        EIGHT_EPOCHS,
    ),
    # 1,972,802 parameters. 89.15 ± 0.48 %, 3 runs, 754 s with AVX-512; 88.92 %, 1 run, 285 s with
    # AMX.
    "cnn-l": ZooNet(
        "The largest CNN of the ladder: cnn-s with the channels of the published net.",
        stack_blocks(64, 256, 256),
        EIGHT_EPOCHS,
    ),
    # 156,034 parameters. 16.9 million multiply-adds per image of 96 px, 92 million of 224 px. Not
    # yet trained to the end on a full data set, and neither are the next two.
    "photo-s": ZooNet(
        "The smallest CNN for images of 64 to 224 px: cnn-s's blocks at a quarter of the side.",
        stack_photo_blocks(32, 64, 64),
        {"best": MUON},
    ),
    # 606,658 parameters. 57.7 million multiply-adds per image of 96 px, 314 million of 224 px.
    "photo-m": ZooNet(
        "The medium CNN for images of 64 to 224 px: photo-s with more channels.",
        stack_photo_blocks(64, 128, 128),
        EIGHT_EPOCHS,
    ),
    # 2,009,794 parameters. 104 million multiply-adds per image of 96 px, 567 million of 224 px.
    "photo-l": ZooNet(
        "The largest CNN for images of 64 to 224 px: photo-s with more channels.",
        stack_photo_blocks(64, 256, 256),
        EIGHT_EPOCHS,
    ),
}
NAMES: tuple[str, ...] = tuple(sorted(NETS))


def load_net(name: str) -> Net:
    """Load a net from the zoo, untrained.

    Args:
        name: such as ``cnn`` or ``mlp``; ``lamina.zoo.NAMES`` lists all.

    Returns:
        The net.

    Raises:
        NetError: the zoo has no net with that name.

    >>> load_net("mlp")
    Net(Flatten(), Linear(100), ReLU(), Output())
    """
    return _find(name).net


def load_recipes(name: str) -> dict[str, Recipe]:
    return _find(name).recipes


def load_recipe(net_name: str, recipe_name: str | None = None) -> Recipe:
    """Load a training recipe of a net in the zoo.

    Args:
        net_name: the name of the net.
        recipe_name: the name of the recipe; by default the first. ``cnn`` and ``mlp`` have
            ``article``, which reproduces the published result.

    Returns:
        The recipe.

    Raises:
        NetError: the zoo has no such net.
        RecipeError: the net has no such recipe.

    >>> load_recipe("cnn").epochs, load_recipe("cnn", "best").epochs
    (10, 25)
    """
    return choose_recipe(net_name, load_recipes(net_name), recipe_name)


def choose_recipe(
    net_name: str, recipes: Mapping[str, Recipe], recipe_name: str | None = None
) -> Recipe:
    """Return the recipe with that name, by default the first; ``RecipeError`` if there is none."""
    check_type(recipe_name, (str,), "recipe_name", "the name of a recipe")
    chosen = recipe_name or next(iter(recipes))
    if chosen not in recipes:
        raise RecipeError(f"{net_name} has no recipe {chosen!r}. {suggest(chosen, recipes)}")
    return recipes[chosen]


def _find(name: str) -> ZooNet:
    check_type(name, (str,), "name", "the name of a net, such as cnn", is_optional=False)
    if name not in NETS:
        raise NetError(f"No net named {name!r} in the zoo. {suggest(name, NAMES)}")
    return NETS[name]
