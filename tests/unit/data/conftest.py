"""The small sets that the tests of the data are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.image_sources import Batches, ImageSet, make_batches, make_image_set


@pytest.fixture(autouse=True)
def use_empty_cache(cache: Path) -> None:
    """What another test decoded is not there."""


@pytest.fixture
def image_set() -> ImageSet:
    return make_image_set({"train": 4, "val": 1, "test": 2})


@pytest.fixture(scope="session")
def drawn_images() -> ImageSet:
    return make_image_set({"train": 90, "val": 5, "test": 20}, side_px=4)


@pytest.fixture
def many_images(drawn_images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """So many that worker processes decode them."""
    monkeypatch.setattr("lamina.data.workers.IMAGES_PER_WORKER", 100)
    return drawn_images


@pytest.fixture
def batches() -> Batches:
    return make_batches()
