"""The article's CNN: four convolutions, two with stride 2, then a hidden layer of 128 units.

591,914 parameters at 3×32×32 and ten classes. Measured on the JPEG copy of CIFAR-10, torch 2.13,
November 2026: ``article`` 74.56 % (72.88 to 76.24), 3 runs, 483 s of training on two cores of an
AMD EPYC in fp32; ``best`` 85.38 %, 1 run, 315 s on two cores of an Intel Xeon with AMX in bf16;
85.31 ± 0.91 %, 3 runs, 442 s on two cores of an AMD EPYC with AVX-512.

``--recipe article`` trains the recipe as published, without ``val``. Without ``--recipe``, lamina
also uses ``article``, but adapts its epochs and batch size to the images and may set aside ``val``,
so the result can differ.
"""

from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, LeakyReLU, Linear, Net, Output
from lamina.training.recipe import Recipe
from lamina.zoo import Published

NET = Net(
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
)

RECIPES = {
    "article": Recipe(epochs=10, batch_size=100, optimizer="adam", lr=1e-3),
    "best": Recipe(
        epochs=25,
        batch_size=250,
        optimizer="muon",
        lr=0.05,
        momentum=0.6,
        weight_decay=0.05,
        schedule="linear",
        warmup_fraction=0.2,
        label_smoothing=0.1,
        dropout=0.2,
        flip="alternating",
        translate_px=2,
        normalization="channel",
    ),
}

PUBLISHED_RESULT = Published(
    accuracy=0.7552, data="cifar10", source="Deep Learning Basics, 22 January 2024"
)
