"""Fixtures of the tests of kernels."""

from __future__ import annotations

import pytest

from lamina.kernels.library import Kernels
from support.built_kernels import load


@pytest.fixture
def kernels() -> Kernels:
    return load()
