"""Read the bodies of requests, and respond in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# A body that is too large is read up to here and dropped: few clients read a response before they
# have sent everything.
READ_LIMIT = 4  # times the limit
BODY_SECONDS = 15.0
TYPES = {  # of files of a page
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "md": "text/markdown",
}
RETRY_AFTER = {"Retry-After": "1"}


class AsciiJson(JSONResponse):
    """JSON in ASCII, because names from data sets need not be valid UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> AsciiJson:
    return AsciiJson({"error": reason}, status, headers)


async def handle_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return refuse(error.status_code, error.detail, error.headers)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body of a request; an ``HTTPException`` if it is too large or arrives too slowly."""
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit_bytes:
                    body += chunk
                else:
                    body.clear()
                if size > READ_LIMIT * limit_bytes:
                    break
    except TimeoutError:
        reason = f"The body did not arrive within {BODY_SECONDS:.0f} seconds."
        raise HTTPException(408, reason) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client disconnected before the body was complete.") from None
    if size > limit_bytes:
        limit = f"{limit_bytes // 10**6} MB"
        raise HTTPException(413, f"The body exceeds {limit}. Send a smaller image.")
    return bytes(body)


def list_assets(*packages: str) -> list[Route]:
    """Routes for the files of the pages of packages: the only files that a server reads."""
    routes = []
    for package in packages:
        page = Path(str(files(package)), "page")
        for file in page.rglob("*.*"):
            ending = file.suffix.removeprefix(".")
            if ending in TYPES:
                name = file.relative_to(page).as_posix()
                path = "/" if name == "index.html" else f"/{name}"
                routes.append(Route(path, send_bytes(file.read_bytes(), TYPES[ending])))
    return routes


def send_bytes(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return respond
