"""The largest CNN for images of 64 to 224 px: photo-s with more channels.

2,009,794 parameters at 3×32×32 and ten classes. Multiply-adds: 104 million per image of 96 px, 567
million at 224 px. Not yet trained to the end on a full data set.
"""

from dataclasses import replace

from lamina.zoo.cnn_s import BEST
from lamina.zoo.photo_s import stack_blocks

NET = stack_blocks(64, 256, 256)

RECIPES = {"best": replace(BEST, epochs=8)}
