"""Small functions of the server: hosts."""

from __future__ import annotations

import pytest

from lamina.deploy.web.access import is_loopback
from lamina.deploy.web.server import name_host


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback_hosts_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_hosts_are_named_as_in_an_address() -> None:
    assert (name_host("127.0.0.1"), name_host("::1")) == ("127.0.0.1", "[::1]")
