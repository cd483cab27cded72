"""Read the bodies of requests, and respond in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Result = TypeVar("Result")

# A body that is too large is read up to here and dropped: few clients read a response before they
# have sent everything.
READ_LIMIT = 4  # times the limit
BODY_SECONDS = 15.0
FORM_FIELDS = 16
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}  # of files of a page
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
        raise HTTPException(413, f"The body exceeds {limit}. Send smaller or fewer images.")
    return bytes(body)


async def read_files(request: Request, body: bytes, most: int) -> list[bytes]:
    """The files in the body of a form, as ``curl -F image=@cat.jpg`` sends them."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=most, max_fields=FORM_FIELDS)
    parser.spool_max_size = len(body) + 1  # nothing is written to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    contents = [await upload.read() for upload in uploads]
    await form.close()
    if not contents:
        raise HTTPException(400, "The form has no file. Send one, as in curl -F image=@cat.jpg.")
    return contents


async def wait_while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of ``work``, which is cancelled when the client disconnects."""
    task = asyncio.ensure_future(work)

    async def notice_leaving() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    noticing = asyncio.create_task(notice_leaving())
    try:
        return await task
    except asyncio.CancelledError:
        if noticing.done():
            raise HTTPException(400, "The client disconnected before the response.") from None
        task.cancel()
        raise
    finally:
        noticing.cancel()


def list_assets(*packages: str) -> list[Route]:
    """Routes for the files of the pages of packages: the only files that a server reads."""
    routes = []
    for package in packages:
        for file in files(package).joinpath("page").iterdir():
            ending = file.name.rpartition(".")[2]
            if ending in TYPES:
                path = "/" if file.name == "index.html" else f"/{file.name}"
                routes.append(Route(path, send_bytes(file.read_bytes(), TYPES[ending])))
    return routes


def send_bytes(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return respond
