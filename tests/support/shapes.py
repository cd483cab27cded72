"""The built-in shapes, of which tests draw a tenth."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from lamina.data.sources import drawn

FEW = {"train": 800, "test": 200}
ALL = dict(drawn.COUNTS)


@pytest.fixture(scope="session", autouse=True)
def draw_few_shapes() -> None:
    """Let ``shapes`` be small in this process."""
    drawn.COUNTS.update(FEW)


@contextlib.contextmanager
def drawing_all_shapes() -> Iterator[None]:
    """Let ``shapes`` be as users have it.

    The cache does not tell sets of other sizes apart, so they have a cache of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", f"{os.environ['LAMINA_CACHE']}-all-shapes")
        drawn.COUNTS.update(ALL)
        try:
            yield
        finally:
            drawn.COUNTS.update(FEW)


@pytest.fixture
def all_shapes() -> Iterator[None]:
    """For a test of the shapes themselves, or of what needs many images."""
    with drawing_all_shapes():
        yield
