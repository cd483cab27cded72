"""The built-in shapes, of which tests draw a tenth."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from support.forking import ALL_SHAPES, FEW_SHAPES, draw_shapes


@pytest.fixture(scope="session", autouse=True)
def draw_few_shapes() -> None:
    """Let ``shapes`` be small in this process."""
    draw_shapes(FEW_SHAPES)


@contextlib.contextmanager
def drawing_all_shapes() -> Iterator[None]:
    """Let ``shapes`` be as users have it.

    The cache does not tell sets of other sizes apart, so they have a cache of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", f"{os.environ['LAMINA_CACHE']}-all-shapes")
        draw_shapes(ALL_SHAPES)
        try:
            yield
        finally:
            draw_shapes(FEW_SHAPES)


@pytest.fixture
def all_shapes() -> Iterator[None]:
    """For a test of the shapes themselves, or of what needs many images."""
    with drawing_all_shapes():
        yield
