"""Each rule that keeps others out, and what a client may send, on a server with default options."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lamina.deploy.web.access import HEADERS
from support.servers import noise_png, serving

TOKEN = "a secret of this test"


@pytest.fixture(scope="module")
def server_with_token(served_runs):
    """A server whose processes are not forked, so that each has an environment of its own."""
    words = (served_runs["hostile"], "--host", "0.0.0.0")
    with serving(*words, forks_python=False, LAMINA_TOKEN=TOKEN) as started:
        yield started


def test_the_worker_does_not_know_the_token(server_with_token):
    environment = Path(f"/proc/{server_with_token.find_worker()}/environ").read_bytes()
    assert b"LAMINA_CACHE=" in environment
    assert b"a secret of" not in environment


def test_it_listens_at_the_loopback_address_alone(server):
    assert server.ask("/healthz").status == 200
    own = socket.gethostbyname(socket.gethostname())
    for address in {"127.0.0.2", own} - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|unreachable"):
            socket.create_connection((address, server.port), timeout=5)


def test_other_hosts_than_its_own_are_turned_away(server):
    def ask(*hosts: str) -> bytes:
        lines = "".join(f"Host: {host}\r\n" for host in hosts)
        return server.ask_raw(
            f"GET /v1/model HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode()
        ).split(b"\r\n")[0]

    port = server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert b" 200 " in ask(host)
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        "localhost",
        f"localhost:{port + 1}",
        f"127.0.0.1.:{port}",
        f"localhost:{port}.evil.example",
        f"localhost:{port}@evil.example",
        f"127.0.0.1:0{port}",
        "",
        f"0:{port}",
    ):
        assert b" 421 " in ask(host)
    assert b" 400 " in ask(f"localhost:{port}", f"evil.example:{port}")
    assert b" 400 " in ask()
    assert b" 421 " in server.ask_raw(b"GET /v1/model HTTP/1.0\r\n\r\n").split(b"\r\n")[0]


def test_only_its_own_page_may_post(server):
    own = server.url.rstrip("/")
    for headers in (
        {},
        {"Sec_Fetch_Site": "same-origin"},
        {"Origin": own},
        {"Origin": own, "Sec_Fetch_Site": "same-origin"},
    ):
        assert server.ask("/v1/predict", noise_png(), **headers).status == 200
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "cross-site", "Origin": own},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": f"http://127.0.0.1:{server.port + 1}"},
        {"Origin": own.replace("http:", "https:")},
    ):
        predicted = server.ask("/v1/predict", noise_png(), **headers)
        assert (predicted.status, predicted.values) == (
            403,
            {
                "error": (
                    "Pages from other origins cannot use this server. Open the server's own page."
                )
            },
        )
    allowed = server.ask("/v1/predict", method="OPTIONS", Origin="http://evil.example")
    assert not [name for name in allowed.headers if name.startswith("access-control-")]


def test_every_response_has_the_headers_that_bind_browsers(server):
    for path in ("/", "/page.js", "/page.css", "/healthz", "/v1/model", "/none"):
        given = server.ask(path).headers
        assert {name.lower(): value for name, value in HEADERS.items()}.items() <= given.items()
        assert "server" not in given
    policy = server.ask("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    refused = server.ask_raw(
        b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    ).lower()
    assert b"x-content-type-options: nosniff" in refused


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/page.css/../../server.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2fserver.py",
        "/page.css%00.png",
        "/page/page.css",
        "//etc/passwd",
        "/./page.css",
        "/openapi.py",
        "/v1/model/../../etc/passwd",
        "http://evil.example/page.css",
    ],
)
def test_no_path_leads_to_a_file_that_is_no_part_of_the_page(server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nConnection: close\r\n\r\n"
    assert server.ask_raw(request.encode()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "model", ["../shapes", "shapes/", "%00", "/etc/passwd", "", "shapes%0d%0aX-Own: 1"]
)
def test_no_model_name_leads_to_a_folder(server, model):
    predicted = server.ask(f"/v1/predict?model={model.replace(' ', '%20')}", noise_png())
    assert predicted.status == 404
    assert "x-own" not in predicted.headers


def test_with_a_token_nothing_of_the_model_is_told_without_it(server_with_token):
    for path in ("/v1/model", "/v1/predict", "/none"):
        for given in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            predicted = server_with_token.ask(
                path, noise_png() if path.endswith("predict") else None, **given
            )
            assert predicted.status == 401
            assert predicted.headers["www-authenticate"] == "Bearer"
    named = {"Authorization": f"Bearer {TOKEN}"}
    assert server_with_token.ask("/v1/model", **named).status == 200
    assert server_with_token.ask("/v1/predict", noise_png(), **named).status == 200
    assert server_with_token.ask("/none", **named).status == 404
    for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json"):
        predicted = server_with_token.ask(path)
        assert predicted.status == 200
        assert b"hostile" not in predicted.body


def test_at_every_address_hosts_are_still_checked(server_with_token):
    assert (
        server_with_token.ask("/healthz", Host=f"evil.example:{server_with_token.port}").status
        == 421
    )
    own = socket.gethostname()
    assert server_with_token.announced == f"http://{own.lower()}:{server_with_token.port}/"
    for name in (own, f"{own}.local", "localhost"):
        assert (
            server_with_token.ask("/healthz", Host=f"{name}:{server_with_token.port}").status == 200
        )


def test_an_invalid_request_line_or_head_gets_400(server):
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    ):
        predicted = server.ask_raw(request)
        assert predicted.startswith(b"HTTP/1.1 400 ")
    long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"
    assert not server.ask_raw(long).startswith(b"HTTP/1.1 200 ")
    assert server.ask("/healthz").status == 200
