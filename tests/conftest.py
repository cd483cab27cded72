"""Settings of all tests: where they run, what they may touch, and how long they may take."""

from __future__ import annotations

import os
import pkgutil
import time
import zipfile
from collections import Counter
from collections.abc import Generator, Iterator
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
        "loss",
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
    "support.clocks",
    "support.images",
    "support.own_code",
    "support.report_runs",
    "support.servers",
    "support.shapes",
    "support.stored",
    "support.studios",
    "support.trained_runs",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``make quick`` fails if a test computes for more than a second, not counting fixtures."""
    parser.addoption("--most-seconds", type=float, help="the most processor time of a test")


def pytest_configure(config: pytest.Config) -> None:
    """Watch for slow tests, if there is a limit."""
    config.pluginmanager.register(SlowTests(config), "slow-tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the nightly tests to CI."""
    if IS_COMPLETE:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test in processor time, which other programs hardly change."""
    began = time.process_time()
    try:
        return (yield)
    finally:
        item.user_properties.append(("processor_seconds", time.process_time() - began))


class SlowTests:
    """Names the tests that compute for longer than ``--most-seconds``, and fails the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.most_seconds: float | None = config.getoption("--most-seconds")
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds = dict(report.user_properties).get("processor_seconds", 0.0)
        limit = self.most_seconds
        if report.when == "call" and limit is not None and seconds > limit:
            self.lines.append(f"{report.nodeid} takes {seconds:.1f} s")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.lines and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lines:
            terminalreporter.section(f"slower than {self.most_seconds:g} s", red=True)
            terminalreporter.write_line(
                "Make these tests cheaper, or move them from unit/ and cli/ to journeys/:"
            )
        for line in self.lines:
            terminalreporter.write_line(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was not tested, and how to test it."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    counts = [f"{count} tests ({reason})" for reason, count in reasons.most_common()]
    if not IS_COMPLETE:
        counts.append("nightly tests (only with CI=true)")
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


def find_cifar10() -> Path:
    """The user's copy of CIFAR-10."""
    if not os.environ.get("LAMINA_CIFAR10"):
        pytest.skip("no CIFAR-10 images: set LAMINA_CIFAR10 to a copy of them")
    return Path(os.environ["LAMINA_CIFAR10"])


@pytest.fixture
def whole_cifar10(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """All 60,000 real images of CIFAR-10, which take half a minute to decode."""
    from lamina.data import load_data

    find_cifar10()
    folder = make_common_folder(tmp_path_factory, "cifar10-cache")
    monkeypatch.setenv("LAMINA_CACHE", str(folder))
    return load_data("cifar10")


@pytest.fixture(scope="session")
def few_cifar10_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of CIFAR-10 with 150 training and 25 test images of each class."""
    source = find_cifar10()
    if not zipfile.is_zipfile(source):
        return source  # official files, which need no decoding
    few = tmp_path_factory.mktemp("cifar10") / "few.zip"
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(source) as images, zipfile.ZipFile(few, "w") as chosen:
        for name in images.namelist():
            folder = name.rpartition("/")[0]
            counts[folder] += 1
            if counts[folder] <= (150 if "train/" in name else 25):
                chosen.writestr(name, images.read(name))
    return few


@pytest.fixture
def cifar10(few_cifar10_files: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """1,750 of CIFAR-10's real images."""
    from lamina.data import load_data

    monkeypatch.setenv("LAMINA_CACHE", str(shared_cache))
    monkeypatch.setenv("LAMINA_CIFAR10", str(few_cifar10_files))
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
