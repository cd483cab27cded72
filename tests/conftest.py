"""Shapes and dtypes of lamina's functions are checked while the tests run; every test has a cache of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# A float may be given as an int, as PEP 484 has it. Recipes are left out: they check their values themselves, and say
# it better.
install_import_hook(
    [
        "lamina.data",
        "lamina.drawing",
        "lamina.evaluation",
        "lamina.nets.modules",
        "lamina.plain",
        "lamina.record",
        "lamina.runs",
        *(
            f"lamina.training.{name}"
            for name in ("augment", "loop", "model", "optim", "randomness", "schedule", "task")
        ),
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that no test sees what another decoded."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LAMINA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def cifar10_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests on real pictures: they are decoded once."""
    if not os.environ.get("LAMINA_CIFAR10"):
        pytest.skip("LAMINA_CIFAR10 is not set: no real pictures to test on")
    return tmp_path_factory.mktemp("cifar10-cache")


@pytest.fixture
def cifar10(cifar10_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """CIFAR-10's real pictures."""
    from lamina.data import load_data

    monkeypatch.setenv("LAMINA_CACHE", str(cifar10_cache))
    return load_data("cifar10")
