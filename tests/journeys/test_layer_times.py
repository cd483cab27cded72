"""How long each layer of a net takes."""

from __future__ import annotations

import pytest

from lamina.errors import LaminaError
from lamina.training.layer_times import time_layers


def test_the_layers_of_large_nets_are_timed_with_fewer_images():
    small = time_layers("Flatten(), Output()", (3, 8, 8), 10)
    # 6e8 for each
    large = time_layers(
        "Conv2d(64, 3, padding='same'), ReLU(), Flatten(), Output()", (64, 128, 128), 2
    )
    assert len(small) == 2 and len(large) == 4 and large[0] > 100 * max(small)
    with pytest.raises(LaminaError, match="too large to be tried"):
        time_layers("Conv2d(512, 5, padding='same'), Flatten(), Output()", (512, 64, 64), 2)
