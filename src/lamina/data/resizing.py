"""How a picture of any size becomes one of the size that a net takes: the same for training and for prediction."""

from __future__ import annotations

from PIL import Image

from lamina.data.preparation import Resize

# Over every pixel that falls into a new one, so that nothing flickers. Of what Pillow has, Lanczos keeps hardly more
# and takes 1.5 times as long, the triangle of "bilinear" blurs.
FILTER = Image.Resampling.BICUBIC
# From six times the size on, whole pixels are averaged first, to three times the size. Against the same filter in
# floats over all pixels: 56 dB, where rounding alone is 58 dB.
REDUCING_GAP = 3.0
# A JPEG is decoded at a half, a quarter or an eighth where that leaves twice what is needed: 43 dB and more, and half
# the time. Once what is needed would leave 37 dB.
OVERSAMPLING = 2


def resize_image(image: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    """A grey or RGB picture made to fit ``size`` (height, width) in pixels; small pictures are scaled up.

    ``crop`` scales it until it covers the size and keeps the centre, ``pad`` scales it until it lies inside and adds
    black bars, ``stretch`` changes its proportions.

    >>> resize_image(Image.new("L", (40, 20), 255), (4, 4), "pad").tobytes().hex(" ", 4)
    '00000000 ffffffff ffffffff 00000000'
    """
    height, width = size
    if image.size == (width, height):
        return image
    if resize == "pad":
        inner = _inside(image.size, size)
        scaled = image.resize(inner, FILTER, reducing_gap=REDUCING_GAP)
        page = Image.new(image.mode, (width, height))
        page.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return page
    box = (0.0, 0.0, float(image.width), float(image.height))
    if resize == "crop" and image.width * height > image.height * width:
        left = (image.width - image.height * width / height) / 2
        box = (left, 0.0, image.width - left, float(image.height))
    elif resize == "crop":
        top = (image.height - image.width * height / width) / 2
        box = (0.0, top, float(image.width), image.height - top)
    return image.resize((width, height), FILTER, box=box, reducing_gap=REDUCING_GAP)


def enough_pixels(stored: tuple[int, int], size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """How wide and high a picture of ``stored`` (width, height) must be decoded at least, to be made to fit ``size``.

    >>> enough_pixels((4000, 3000), (64, 64), "crop"), enough_pixels((4000, 3000), (64, 64), "pad")
    ((128, 128), (128, 96))
    """
    width, height = _inside(stored, size) if resize == "pad" else size[::-1]
    return OVERSAMPLING * width, OVERSAMPLING * height


def _inside(stored: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height of the proportions of ``stored`` that lie inside ``size`` (height, width)."""
    width, height = stored
    scale = min(size[1] / width, size[0] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
