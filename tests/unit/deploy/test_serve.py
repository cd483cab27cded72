"""Small functions of the server: hosts, files of a form."""

from __future__ import annotations

import asyncio
import tempfile

import pytest
from starlette.requests import Request

from lamina.deploy.web.access import is_loopback
from lamina.deploy.web.bodies import read_files
from lamina.deploy.web.server import name_host
from support.servers import FORM, pack_form


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback_hosts_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_hosts_are_named_as_in_an_address() -> None:
    assert (name_host("127.0.0.1"), name_host("::1")) == ("127.0.0.1", "[::1]")


def test_large_files_of_a_form_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file on the disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    headers = [(b"content-type", FORM.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers})
    image = bytes(3_000_000)
    assert asyncio.run(read_files(request, pack_form([image]), 2)) == [image]
