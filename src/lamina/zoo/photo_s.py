"""The smallest CNN for images of 64 to 224 px: cnn-s's blocks at a quarter of the image side.

Whitening with stride 2, then a convolution with stride 2. 156,034 parameters at 3×32×32 and ten
classes. Images must have at least 32 px. Multiply-adds per image:

    photo-s    96 px: 16.9 million    224 px: 92 million
    cnn-s      32 px: 17.1 million     96 px: 169.5 million

Not yet trained to the end on a full data set.
"""

from lamina.nets import BatchNorm, Conv2d, GlobalMaxPool, Net, Output, ReLU, Whiten
from lamina.zoo.cnn_s import BEST, block


def stack_blocks(*widths: int) -> Net:
    """Whitening and a convolution, each with stride 2, a block for each width, and the output."""
    reduction = Conv2d(widths[0], kernel_size=3, stride=2, padding=1, bias=False)
    blocks = (layer for width in widths for layer in block(width))
    return Net(
        Whiten(2, stride=2),
        ReLU(),
        reduction,
        BatchNorm(),
        ReLU(),
        *blocks,
        GlobalMaxPool(),
        Output(),
    )


NET = stack_blocks(32, 64, 64)

RECIPES = {"best": BEST}
