"""Settings of the quick tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def load_slow_modules() -> None:
    """Load what takes longer than a test, so that no test is slow because it comes first.

    The first optimizer that a process makes loads torch's compiler.
    """
    import timm  # noqa: F401
    import torch

    torch.optim.SGD([torch.zeros(1)])
