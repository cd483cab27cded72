"""The whitened net of middle width; see cnn_s.py for what it is made of.

569,666 parameters at 3×32×32 and ten classes. Not measured to the end yet.
"""

from dataclasses import replace

from lamina.zoo.cnn_s import BEST, stack_blocks

NET = stack_blocks(64, 128, 128)

RECIPES = {"best": replace(BEST, epochs=8)}
