"""While the tests run, shapes and dtypes are checked, and no test touches the user's cache."""

from __future__ import annotations

import os
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# The tests are about the CPU, also where there is a GPU; LAMINA_TEST_CUDA=1 runs those that are
# about CUDA.
if not os.environ.get("LAMINA_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import lamina

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Speed is measured, not tested: a busy machine is no reason to fail.
settings.register_profile("lamina", deadline=None)
settings.load_profile("lamina")

# A float may be given as an int, as PEP 484 has it. Values such as Recipe and Preparation are left
# out: they check their fields themselves, with a better message.
install_import_hook(
    [
        *(
            f"lamina.data.{module.name}"
            for module in pkgutil.iter_modules([str(Path(lamina.__path__[0], "data"))])
            if module.name != "preparation"
        ),
        "lamina.deploy",
        "lamina.drawing",
        "lamina.evaluation",
        "lamina.files",
        "lamina.insight",
        "lamina.nets.modules",
        "lamina.runs",
        "lamina.text",
        *(
            f"lamina.training.{name}"
            for name in (
                "activations",
                "augment",
                "checkpoint",
                "batches",
                "forward",
                "guard",
                "head",
                "loop",
                "model",
                "optim",
                "randomness",
                "schedule",
                "task",
            )
        ),
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


def make_common_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all test processes share; xdist gives each its own base within it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the tests that use data without being about it: the shapes are drawn once."""
    return make_common_folder(tmp_path_factory, "shared-cache")


@pytest.fixture(scope="session", autouse=True)
def use_shared_cache(shared_cache: Path) -> Iterator[None]:
    """Leave the user's own cache alone, in what modules and sessions share too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(shared_cache))
        yield


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for a test that is about what is in it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LAMINA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def cifar10_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests on real images: they are decoded once."""
    if not os.environ.get("LAMINA_CIFAR10"):
        pytest.skip("LAMINA_CIFAR10 is not set: no real images to test on")
    return make_common_folder(tmp_path_factory, "cifar10-cache")


@pytest.fixture
def cifar10(cifar10_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """CIFAR-10's real images."""
    from lamina.data import load_data

    monkeypatch.setenv("LAMINA_CACHE", str(cifar10_cache))
    return load_data("cifar10")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; without one, tests skip, or fail if LAMINA_TEST_BROWSER is set."""
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None and not os.environ.get("LAMINA_TEST_BROWSER"):
        pytest.skip("there is no Chromium: install Debian's package chromium")
    assert chromium, (
        "LAMINA_TEST_BROWSER is set, but there is no Chromium. Install Debian's package chromium."
    )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
        )
        yield launched
        launched.close()
