"""Request bodies, read within limits of size, time and memory, and JSON responses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from lamina.errors import plural

# A body that is too large is read up to here and dropped: few clients read a response before they
# have sent everything.
READ_LIMIT = 4  # times the limit
HELD_LIMIT_BYTES = 64 * 10**6  # of all requests together
BODY_SECONDS = 15.0
REQUEST_IMAGES = 64
# commas, brackets and braces, which parse to objects many times their size
JSON_MARKS = 8 * REQUEST_IMAGES
RETRY_AFTER = {"Retry-After": "1"}


class AsciiJson(JSONResponse):
    """JSON in ASCII, because names from data sets need not be valid UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> AsciiJson:
    return AsciiJson({"error": reason}, status, headers)


@dataclass
class Held:
    """The most bytes in a request's body, and the number of bytes in all bodies in progress."""

    limit_bytes: int
    size: int = 0

    @asynccontextmanager
    async def read_body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body, counted during the block; status 503 if all bodies exceed the limit."""
        own = 0

        def hold(size: int) -> None:
            nonlocal own
            if size > 0 and self.size + size > max(HELD_LIMIT_BYTES, 2 * self.limit_bytes):
                raise HTTPException(503, "The server is busy. Try again later.", RETRY_AFTER)
            self.size, own = self.size + size, own + size

        try:
            yield await _read(request, hold, self.limit_bytes)
        finally:
            self.size -= own


async def _read(request: Request, hold: Callable[[int], None], limit_bytes: int) -> bytearray:
    body = bytearray()  # grows in place: joining chunks would need the memory twice
    read = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                read += len(chunk)
                if read <= limit_bytes:
                    hold(len(chunk))
                    body += chunk
                elif body:
                    hold(-len(body))
                    body = bytearray()
                if read > READ_LIMIT * limit_bytes:
                    break
    except TimeoutError:
        raise HTTPException(
            408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds."
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client disconnected before the body was complete.") from None
    if read > limit_bytes:
        limit = f"{limit_bytes // 10**6} MB"
        raise HTTPException(413, f"The body exceeds {limit}. Send smaller or fewer images.")
    return body


async def read_images(
    content_type: str, body: bytearray, limit: int
) -> tuple[Sequence[bytes | bytearray | None], bool]:
    """The images in a body, ``None`` for invalid base64, and whether they were sent as a list."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = _parse_form(content_type, body)
        if len(files) > limit:
            raise _too_many(limit)
        return files, len(files) > 1
    if kind != "application/json":
        return [body], False
    return await asyncio.to_thread(_parse_images, body, limit), True


def _too_many(limit: int) -> HTTPException:
    images = plural(limit, "image", "images")
    return HTTPException(
        413, f"The request has too many images; the limit is {images}. Send several requests."
    )


def _parse_form(content_type: str, body: bytearray) -> list[bytes]:
    """The files of a form, as ``curl -F image=@cat.jpg`` sends it."""
    head = Message()
    head["Content-Type"] = content_type
    mark = f"--{head.get_boundary()}".encode("ascii", "replace")
    parts = [part.partition(b"\r\n\r\n") for part in body.split(mark, 2 * REQUEST_IMAGES)[1:]]
    files = [bytes(data.removesuffix(b"\r\n")) for named, _, data in parts if b"filename=" in named]
    if not files:
        raise HTTPException(400, "The form has no file. Send one, as in curl -F image=@cat.jpg.")
    return files


def _parse_images(body: bytearray, limit: int) -> list[bytes | None]:
    too_many = _too_many(limit)
    if sum(map(body.count, (b",", b"[", b"{"))) > JSON_MARKS:
        raise too_many
    try:
        texts = json.loads(body)["images"]
        if not isinstance(texts, list):
            raise TypeError
        if len(texts) > limit:
            raise too_many
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(
            400, 'Invalid body. Send JSON such as {"images": ["…"]}, each image in base64.'
        ) from None
    return [_decode(text) for text in texts]


def _decode(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None
