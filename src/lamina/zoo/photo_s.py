"""The smallest net for images of 64 to 224 px: reduced to a quarter of their side, then the blocks of cnn_s.py.

Whitened patches of 2×2 px side by side, and a convolution with a stride of 2. 156,034 parameters at 3×32×32 and ten
classes. An image of 96 px costs 16.9 million multiply-adds, as for cnn-s at 32 px (17.1; at 96 px 169.5), one of 224 px
92 million. Images must have 32 px or more.

Not trained to the end yet; docs/experiments.md has what it reached on few images.
"""

from lamina.nets import BatchNorm, Conv2d, GlobalMaxPool, Net, Output, ReLU, Whiten
from lamina.zoo.cnn_s import BEST, block


def stack_blocks(*widths: int) -> Net:
    """The whitening and the first convolution, which quarter the sides, a block for each width, and the output."""
    reduction = Conv2d(widths[0], kernel_size=3, stride=2, padding=1, bias=False)
    blocks = (layer for width in widths for layer in block(width))
    return Net(Whiten(2, stride=2), ReLU(), reduction, BatchNorm(), ReLU(), *blocks, GlobalMaxPool(), Output())


NET = stack_blocks(32, 64, 64)

RECIPES = {"best": BEST}
