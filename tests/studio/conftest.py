from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opened import Studio, opening
from playwright.sync_api import Browser, Page, expect
from served import open_page


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    with opening(tmp_path) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """The page with ``shapes``, once everything is loaded."""
    with open_page(browser, studio.url) as opened:
        # Other tests may keep all cores busy.
        opened.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        opened.get_by_role("combobox", name="Data").select_option("shapes")
        expect(opened.locator("#data-view")).to_contain_text("7,200 train, 800 val, 2,000 test")
        yield opened
