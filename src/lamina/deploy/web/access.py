"""Access control before any handler: hosts, origins, the token; security headers for browsers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lamina.deploy.web.bodies import RETRY_AFTER, AsciiJson, refuse

TOKEN_VARIABLE = "LAMINA_TOKEN"  # noqa: S105
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def without_token() -> dict[str, str]:
    """The environment for child processes, which do not need the secret."""
    return {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}


@dataclass(frozen=True)
class Guard:
    """Passes requests with a valid host, origin and token to ``app``, and adds headers."""

    app: ASGIApp
    names: frozenset[str]  # of the server, that requests may use in addition to its address
    port: int
    token: str | None
    open_paths: frozenset[str]  # need no token: they reveal nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", ()), *RAW_HEADERS]
                if message["status"] >= 400 and scope["method"] not in ("GET", "HEAD"):
                    # Do not read the rest of the body.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            response = self._find_refusal(scope) or self.app
            await response(scope, receive, send_guarded)
        except asyncio.CancelledError:
            if has_begun:
                raise
            reason = "The server is shutting down. Try again later."
            await refuse(503, reason, RETRY_AFTER)(scope, receive, send_guarded)

    def _find_refusal(self, scope: Scope) -> AsciiJson | None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # A proxy might interpret a repeated header differently.
            headers[name] = headers[name] + b"," + value if name in headers else value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_served(host, scope):
            return refuse(
                421,
                f"The host {host[:100]!r} is not a name of this server. Use the URL that it"
                " printed.",
            )
        origin = f"{scope['scheme']}://{host}".encode("latin-1")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and not is_from_page(headers, origin):
            return refuse(
                403, "Pages from other origins cannot use this server. Open the server's own page."
            )
        if self.token and scope["path"] not in self.open_paths:
            kind, _, secret = headers.get(b"authorization", b"").partition(b" ")
            is_equal = hmac.compare_digest(secret.strip(), self.token.encode())
            if kind.lower() != b"bearer" or not is_equal:
                reason = (
                    "The token is missing or invalid. Send the header Authorization: Bearer TOKEN."
                )
                return refuse(401, reason, {"www-authenticate": "Bearer"})
        return None

    def _is_served(self, host: str, scope: Scope) -> bool:
        address = scope["server"][0] if scope.get("server") else ""
        names = {*self.names, bracket(address)}
        with_ports = {f"{name}:{self.port}" for name in names}
        return host in with_ports or (self.port == 80 and host in names)


def find_names(host: str) -> frozenset[str]:
    """The names of a server that listens at ``host``; it may ask the name service for them."""
    names = {bracket(host.lower()), *LOOPBACK_NAMES}
    if not is_loopback(host):
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local", socket.getfqdn().lower()}
    return frozenset(names)


def bracket(address: str) -> str:
    """An address as URLs write it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def is_from_page(headers: Mapping[bytes, bytes], origin: bytes) -> bool:
    """Whether a request comes from a page of ``origin``, or not from a page."""
    # Browsers send Origin with each POST, and Sec-Fetch-Site, which pages cannot forge, to loopback
    # and over HTTPS. Other programs send neither.
    site = headers.get(b"sec-fetch-site")
    if site is None:
        return headers.get(b"origin", origin) == origin
    return site == b"same-origin"
