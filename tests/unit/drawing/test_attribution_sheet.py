"""Maps on a sheet of explanations."""

from __future__ import annotations

import numpy as np

from lamina.drawing.attribution_sheet import _average_blocks


def test_large_maps_are_averaged_before_they_are_drawn():
    values = np.arange(130 * 200, dtype=np.float32).reshape(130, 200)
    drawn = _average_blocks(values)
    assert drawn.shape == (65, 100)
    assert drawn[1, 2] == values[2:4, 4:6].mean()
    uneven = _average_blocks(np.ones((129, 131), np.float32))
    assert uneven.shape == (65, 66)
    assert (uneven == 1).all()
