"""A larger MLP of three hidden layers with batch norm, for Muon, flips and random translation.

1,971,210 parameters at 3×32×32 and ten classes. Measured on two cores of an AMD EPYC with AVX-512,
torch 2.13, the JPEG copy of CIFAR-10, November 2026: 67.99 ± 0.52 %, 3 runs, 231 s of
training.
"""

from lamina.nets import BatchNorm, Flatten, Linear, Net, Output, ReLU
from lamina.training.recipe import Recipe

NET = Net(
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
)

RECIPES = {
    "best": Recipe(
        epochs=45,
        batch_size=1000,
        optimizer="muon",
        lr=0.02,
        momentum=0.9,
        weight_decay=0.1,
        schedule="linear",
        warmup_fraction=0.1,
        label_smoothing=0.1,
        flip="alternating",
        translate_px=4,
        normalization="channel",
    )
}
