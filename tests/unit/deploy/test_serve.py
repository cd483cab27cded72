"""Hosts of the server: which are loopback, how they are named, and when they are looked up."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from starlette.applications import Starlette

from lamina.deploy.web.access import is_loopback
from lamina.deploy.web.server import Address, name_host, open_socket, running


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback_hosts_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_hosts_are_named_as_in_an_address() -> None:
    assert (name_host("127.0.0.1"), name_host("::1")) == ("127.0.0.1", "[::1]")


def test_names_are_looked_up_before_the_server_accepts_requests(monkeypatch):
    looked_up: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", lambda: looked_up.append("now") or "name.example")

    async def ask(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        reply = await reader.read()
        writer.close()
        return reply

    async def serve() -> None:
        with await open_socket("0.0.0.0", 0) as listening:
            port = listening.getsockname()[1]
            address = Address("0.0.0.0", port, None)
            async with running(Starlette(), listening, address, frozenset()):
                before = list(looked_up)
                assert (await ask("name.example", port)).startswith(b"HTTP/1.1 404 ")
                assert (await ask("evil.example", port)).startswith(b"HTTP/1.1 421 ")
                assert before == looked_up == ["now"]

    asyncio.run(serve())


def test_nothing_waits_for_the_name_service_while_a_server_starts(monkeypatch):
    answered = threading.Event()
    find_addresses = socket.getaddrinfo

    def ask_slowly(*arguments, **options):
        answered.wait(60)
        return find_addresses(*arguments, **options)

    async def start() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", ask_slowly)
        monkeypatch.setattr(socket, "getfqdn", lambda: answered.wait(60) and "name.example")
        opening = asyncio.create_task(open_socket("127.0.0.1", 0))
        await asyncio.sleep(0.05)  # this would not end if the event loop asked
        assert not opening.done()
        answered.set()
        with await opening as listening:
            answered.clear()
            address = Address("0.0.0.0", listening.getsockname()[1], None)
            started = running(Starlette(), listening, address, frozenset())
            entering = asyncio.create_task(started.__aenter__())
            await asyncio.sleep(0.05)
            assert not entering.done()
            answered.set()
            await entering
            await started.__aexit__(None, None, None)

    asyncio.run(asyncio.wait_for(start(), 30))
