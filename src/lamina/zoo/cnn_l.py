"""The largest CNN of the ladder: cnn-s with the channels of the published net.

1,972,802 parameters at 3×32×32 and ten classes. Measured on the JPEG copy of CIFAR-10, torch 2.13,
November 2026: 89.15 ± 0.48 %, 3 runs, 754 s of training on two cores of an AMD EPYC with AVX-512;
88.92 %, 1 run, 285 s on two cores of an Intel Xeon with AMX.
"""

from dataclasses import replace

from lamina.zoo.cnn_s import BEST, stack_blocks

NET = stack_blocks(64, 256, 256)

RECIPES = {"best": replace(BEST, epochs=8)}
