"""ResNet-18 for small images: a 3×3 stem, four stages of two residual blocks, average pooling.

He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, arXiv 1512.03385. The stem has no
stride and no pool, as in section 4.2 of that paper. 11,173,962 parameters at 3×32×32 and ten
classes. Not yet trained to the end: an epoch takes minutes on two cores.
"""

from lamina.nets import BatchNorm, Conv2d, GlobalAvgPool, Layer, Net, Output, ReLU, Residual
from lamina.training.recipe import Recipe


def _block(channels: int, stride: int = 1) -> tuple[Layer, ...]:
    """Two convolutions and a shortcut, which is a 1×1 convolution if the block changes the size."""
    is_same = stride == 1
    return (
        Residual(
            Conv2d(channels, kernel_size=3, stride=stride, padding=1, bias=False),
            BatchNorm(),
            ReLU(),
            Conv2d(channels, kernel_size=3, padding=1, bias=False),
            BatchNorm(),
            shortcut=(
                ()
                if is_same
                else (Conv2d(channels, kernel_size=1, stride=stride, bias=False), BatchNorm())
            ),
        ),
        ReLU(),
    )


NET = Net(
    Conv2d(64, kernel_size=3, padding=1, bias=False),
    BatchNorm(),
    ReLU(),
    *_block(64),
    *_block(64),
    *_block(128, stride=2),
    *_block(128),
    *_block(256, stride=2),
    *_block(256),
    *_block(512, stride=2),
    *_block(512),
    GlobalAvgPool(),
    Output(),
)

RECIPES = {
    "best": Recipe(
        epochs=15,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="one-cycle",
        flip="random",
        translate_px=4,
        normalization="channel",
    )
}
