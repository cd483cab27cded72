"""The whitened net of the published widths; see cnn_s.py for what it is made of."""

from dataclasses import replace

from lamina.zoo.cnn_s import BEST, stack_blocks

NET = stack_blocks(64, 256, 256)

RECIPES = {"best": replace(BEST, epochs=8)}
