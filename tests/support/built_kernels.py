"""The C functions under test; LAMINA_TEST_KERNELS makes it a failure that they are not built."""

from __future__ import annotations

import os

import pytest

from lamina.kernels.library import LIBRARY, Kernels, load_kernels


def load() -> Kernels:
    kernels = load_kernels()
    if not isinstance(kernels, Kernels):
        if "LAMINA_TEST_KERNELS" in os.environ and not LIBRARY.exists():
            pytest.fail(kernels.reason)
        pytest.skip(kernels.reason)
    return kernels
