"""Access control before any handler: hosts, origins, the token; security headers for browsers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lamina.deploy.serve.bodies import RETRY_AFTER, AsciiJson, refuse
from lamina.deploy.serve.counters import Metrics

TOKEN_VARIABLES = "LAMINA_TOKEN", "LAMINA_METRICS_TOKEN"  # the second one opens only the metrics
REQUEST_SECONDS = 90.0  # from a request's head to the end of its response
# The only files that the server reads: for each path in the URL, a file of this package.
ASSETS = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/request.js": ("request.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"),
    "/openapi.json": ("openapi.json", "application/json"),
}
TASKS = ("predict", "explain", "similar")
OPEN_PATHS = (*ASSETS, "/healthz", "/readyz")  # need no token: they reveal nothing about the models
PATHS = (*OPEN_PATHS, "/metrics", "/v1/model", *(f"/v1/{task}" for task in TASKS))
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def find_names(host: str) -> frozenset[str]:
    """The host names that requests to a server at ``host`` may use, in addition to its address."""
    given = f"[{host}]" if ":" in host else host.lower()
    name = socket.gethostname()
    own = () if is_loopback(host) else (name, f"{name}.local", socket.getfqdn())
    return frozenset({given, *LOOPBACK_NAMES, *map(str.lower, own)})


def is_own_page(headers: Mapping[bytes, bytes], origin: bytes) -> bool:
    """Whether a request comes from a page of ``origin``, or not from a page."""
    # Browsers send Origin with each POST, and Sec-Fetch-Site, which pages cannot forge, to loopback
    # and over HTTPS. Other programs send neither.
    site = headers.get(b"sec-fetch-site")
    if site is None:
        return headers.get(b"origin", origin) == origin
    return site == b"same-origin"


class Guard:
    """Passes requests with a valid host, origin and token to ``app``; adds headers, counts."""

    def __init__(
        self,
        app: ASGIApp,
        names: Iterable[str],
        port: int,
        token: str | None,
        metrics_token: str | None,
        metrics: Metrics,
        open_paths: Iterable[str] = OPEN_PATHS,
        headers: Mapping[str, str] = HEADERS,
    ) -> None:
        self._app = app
        self._names = frozenset(names)
        self._port = port
        self._tokens = [token.encode()] if token else []
        self._metrics_tokens = [*self._tokens, *([metrics_token.encode()] if metrics_token else [])]
        self._metrics = metrics
        self._open_paths = frozenset(open_paths)  # need no token
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers]
                if status >= 400 and scope["method"] not in ("GET", "HEAD"):
                    # Do not read the rest of the body.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = self._find_refusal(scope) or self._app
                await response(scope, receive, send_guarded)
        except TimeoutError:
            if not status:
                reason = "The request took too long. Try again later."
                await refuse(503, reason, RETRY_AFTER)(scope, receive, send_guarded)
        except asyncio.CancelledError:
            if status:
                raise
            await refuse(503, "The server is shutting down. Try again later.", RETRY_AFTER)(
                scope, receive, send_guarded
            )
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.count_request(path, status, time.perf_counter() - began)

    def _find_refusal(self, scope: Scope) -> AsciiJson | None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # A proxy might interpret a repeated header differently.
            headers[name] = headers[name] + b"," + value if name in headers else value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_own(host, scope):
            return refuse(
                421,
                f"The host {host[:100]!r} is not a name of this server. Use the URL that it"
                " printed.",
            )
        own = f"{scope['scheme']}://{host}".encode("latin-1")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not is_own_page(headers, own):
            return refuse(
                403, "Pages from other origins cannot use this server. Open the server's own page."
            )
        tokens = self._metrics_tokens if scope["path"] == "/metrics" else self._tokens
        if tokens and scope["path"] not in self._open_paths:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not any(
                hmac.compare_digest(given.strip(), token) for token in tokens
            ):
                reason = (
                    "The token is missing or invalid. Send the header Authorization: Bearer TOKEN."
                )
                return refuse(401, reason, {"www-authenticate": "Bearer"})
        return None

    def _is_own(self, host: str, scope: Scope) -> bool:
        address = scope["server"][0] if scope.get("server") else ""
        names = {*self._names, f"[{address}]" if ":" in address else address}
        return host in {f"{name}:{self._port}" for name in names} or (
            self._port == 80 and host in names
        )
