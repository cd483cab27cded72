"""The C functions under test; LAMINA_TEST_KERNELS makes it a failure that they are not built."""

from __future__ import annotations

import os

import pytest

from lamina.kernels.library import Kernels, load_kernels


def load(level: str) -> Kernels:
    kernels = load_kernels(level)
    if not isinstance(kernels, Kernels):
        if "LAMINA_TEST_KERNELS" in os.environ and level == "auto":
            pytest.fail(kernels.reason)
        pytest.skip(kernels.reason)
    return kernels
