"""Fixtures of the tests of kernels."""

from __future__ import annotations

import pytest
from built_kernels import load

from lamina.kernels.library import Kernels


@pytest.fixture
def kernels() -> Kernels:
    return load("auto")
