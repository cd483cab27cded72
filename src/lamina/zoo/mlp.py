"""The article's MLP: the flattened image and a hidden layer of 100 units.

308,310 parameters at 3×32×32 and ten classes. Measured on the JPEG copy of CIFAR-10, torch 2.13,
November 2026: 50.36 % (49.14 to 51.57), 3 runs, 8.3 s of training on two cores of an AMD EPYC
without bf16, 3.6 s on two cores of an Intel Xeon with AMX, both in fp32; in bf16 50.17 %, median of
3 runs, 3.5 s on two cores of an AMD EPYC with AVX-512.
"""

from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.training.recipe import Recipe
from lamina.zoo import Published

NET = Net(Flatten(), Linear(100), ReLU(), Output())

RECIPES = {"article": Recipe(epochs=5, batch_size=100, optimizer="adam", lr=1e-3)}

PUBLISHED_RESULT = Published(
    accuracy=0.4996, data="cifar10", source="Deep Learning Basics, 22 January 2024"
)
