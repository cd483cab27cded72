"""The built-in set as users have it."""

from __future__ import annotations

import pytest

from lamina.data import Preparation, load_data
from lamina.data.inspection import inspect


@pytest.mark.usefixtures("all_shapes", "cache")
def test_the_shapes_are_drawn_with_progress_and_no_image_twice() -> None:
    calls: list[tuple[int, int]] = []
    data = load_data("shapes", progress=lambda done, total: calls.append((done, total)))
    assert (len(data.train), data.val, len(data.test)) == (8_000, None, 2_000)
    assert calls[-1] == (10_000, 10_000)
    assert calls == sorted(calls)
    different = {
        images.pixels[row].tobytes()
        for images in data.splits.values()
        for row in range(len(images))
    }
    assert len(different) == 10_000
    # A run knows its data by it, as in tests/unit/data/test_load.py.
    assert data.fingerprint == "9bfb5fa852c81e048d940e94894dc085"


@pytest.mark.usefixtures("all_shapes", "cache")
def test_the_shapes_are_clean() -> None:
    assert inspect(load_data("shapes", Preparation(size_px=8))).findings == ()
