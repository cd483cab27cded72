"""Settings of the tests of trainings."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def import_timm() -> None:
    """Its import takes longer than a test."""
    import timm  # noqa: F401
