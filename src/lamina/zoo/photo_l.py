"""The widest net for images of 64 to 224 px; its layers are those of photo_s.py.

2,009,794 parameters at 3×32×32 and ten classes. An image of 96 px costs 104 million multiply-adds, one of 224 px 567.

Not trained to the end yet; docs/experiments.md has what photo-s reached on few images.
"""

from dataclasses import replace

from lamina.zoo.cnn_s import BEST
from lamina.zoo.photo_s import stack_blocks

NET = stack_blocks(64, 256, 256)

RECIPES = {"best": replace(BEST, epochs=8)}
