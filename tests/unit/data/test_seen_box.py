"""Where in an image the net sees."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lamina.data.decoding import resize_image, seen_box


@pytest.mark.parametrize(
    ("resize", "mark"), [("crop", (150, 50)), ("pad", (20, 50)), ("stretch", (280, 80))]
)
def test_the_box_is_where_the_net_sees(resize, mark):
    """A dot that the net sees lies where the box puts it."""
    image = Image.new("L", (300, 100))
    image.paste(255, (mark[0] - 10, mark[1] - 10, mark[0] + 10, mark[1] + 10))
    seen = np.asarray(resize_image(image, (40, 40), resize), np.float64)
    left, top, right, bottom = seen_box((300, 100), (40, 40), resize)
    down, across = (
        np.average(np.arange(40) + 0.5, weights=seen.sum(axis=axis)) / 40 for axis in (1, 0)
    )
    assert left + across * (right - left) == pytest.approx(mark[0], abs=4)
    assert top + down * (bottom - top) == pytest.approx(mark[1], abs=4)
