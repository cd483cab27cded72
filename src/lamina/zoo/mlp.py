"""The article's MLP: the picture as one row of numbers, a hidden layer of 100 units.

308,310 parameters at 3×32×32 and ten classes.
"""

from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.training.recipe import Recipe

NET = Net(Flatten(), Linear(100), ReLU(), Output())

RECIPES = {"article": Recipe(epochs=5, batch_size=100, optimizer="adam", lr=1e-3)}
