"""Libraries of other people that the pages use."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import pytest

DEPLOY = files("lamina.deploy")


@pytest.mark.parametrize(
    ("folder", "file"), [("studio", "uplot-license.txt"), ("web", "preact-license.txt")]
)
def test_the_libraries_of_the_pages_are_those_that_are_named(folder, file):
    page = DEPLOY / folder / "page"
    named = re.findall(r"^([0-9a-f]{64})  (\S+)", page.joinpath(file).read_text(), re.MULTILINE)
    assert named
    for digest, name in named:
        assert hashlib.sha256(page.joinpath(name).read_bytes()).hexdigest() == digest
