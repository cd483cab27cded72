"""Settings of all tests: where they run, what they may touch, their marks and their order.

Marks follow from folders and fixtures. A test that needs a fixture of a whole module or of all
tests stays with its neighbours on one worker, and the longest tests start first.
"""

from __future__ import annotations

import os
import pkgutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Tests run on the CPU even where there is a GPU; LAMINA_TEST_CUDA=1 runs the tests of CUDA.
if not os.environ.get("LAMINA_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import lamina
from support.examples import IS_COMPLETE, LOCAL_EXAMPLES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parent
SHARED_FIXTURES = {
    "server": "support.servers",
    "report_runs": "support.report_runs",
    "shapes_run": "support.trained_runs",
}
"""Fixtures of all tests that take seconds to make, by module: their tests stay on one worker."""
STARTS = {"forking", "run_group", "run_process", "start_process"}
"""What a test names that starts a process."""

# No deadline: a busy machine is no reason to fail.
settings.register_profile("complete", deadline=None)
settings.register_profile("short", deadline=None, max_examples=LOCAL_EXAMPLES)
settings.load_profile("complete" if IS_COMPLETE else "short")


def check_types() -> None:
    """Check shapes and types of lamina's functions whenever they are called.

    As in PEP 484, an int may stand for a float. Values such as Recipe and Preparation are left out,
    because they check their fields themselves, with better messages.
    """
    data = [
        f"lamina.data.{module.name}"
        for module in pkgutil.iter_modules([str(Path(lamina.__path__[0], "data"))])
        if module.name != "preparation"
    ]
    rooms = ("deploy", "drawing", "evaluation", "files", "insight", "nets.modules", "runs", "text")
    names = (
        "hooks",
        "augment",
        "batches",
        "checkpoint",
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
    install_import_hook(
        [
            *data,
            *(f"lamina.{room}" for room in rooms),
            *(f"lamina.training.{name}" for name in names),
        ],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )


if IS_COMPLETE:
    check_types()

# Loaded after the line above, so that the types of what they import are checked.
pytest_plugins = (
    "support.images",
    "support.report_runs",
    "support.servers",
    "support.stored",
    "support.studios",
    "support.trained_runs",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Derive marks and groups of workers, and put the longest tests first."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        code = getattr(getattr(item, "function", None), "__code__", None)
        names = set() if code is None else {*code.co_names}
        if TESTS / "process" in item.path.parents or names & STARTS:
            item.add_marker("process")
        for mark in ("browser", "cifar10", "postgres"):
            if mark in fixtures:
                item.add_marker(mark)
        if group := find_group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=find_rank)


def find_group(item: pytest.Item) -> str:
    """The name of the tests that share an expensive fixture with this one."""
    information = getattr(item, "_fixtureinfo", None)
    if information is None:
        return ""
    group = ""
    for name, definitions in information.name2fixturedefs.items():
        fixture = definitions[-1]
        if SHARED_FIXTURES.get(name) == fixture.func.__module__:
            return name
        if fixture.baseid.endswith(".py") and fixture.scope in ("module", "session"):
            group = str(item.path)
    return group


def find_rank(item: pytest.Item) -> int:
    """Processes and pages first, then slow tests, then groups, then the rest."""
    for rank, mark in enumerate(("browser", "process", "slow", "xdist_group")):
        if item.get_closest_marker(mark):
            return rank
    return 4


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was not tested, and how to test it."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    counts = [f"{count} tests ({reason})" for reason, count in reasons.most_common()]
    if counts:
        terminalreporter.write_line(f"not tested here: {', '.join(counts)}")


def make_common_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all workers share; xdist gives each its own folder below a common one."""
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
    """Leave the user's own cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(shared_cache))
        yield


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for a test that is about its content."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LAMINA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def cifar10_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests on real images: they are decoded once."""
    if not os.environ.get("LAMINA_CIFAR10"):
        pytest.skip("no CIFAR-10 images: set LAMINA_CIFAR10 to a copy of them")
    return make_common_folder(tmp_path_factory, "cifar10-cache")


@pytest.fixture
def cifar10(cifar10_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """CIFAR-10's real images."""
    from lamina.data import load_data

    monkeypatch.setenv("LAMINA_CACHE", str(cifar10_cache))
    return load_data("cifar10")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; without one, a test is skipped, or fails if LAMINA_TEST_BROWSER is set."""
    from support.servers import PATIENCE_SECONDS, find_chromium  # it loads torch

    chromium = find_chromium()
    if chromium is None and not os.environ.get("LAMINA_TEST_BROWSER"):
        pytest.skip("no Chromium: apt-get install chromium")
    assert chromium, "LAMINA_TEST_BROWSER is set, but there is no Chromium: install chromium."
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE_SECONDS)  # other tests may keep all cores busy
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
        )
        yield launched
        launched.close()
