"""Request bodies, read within limits of size, time and memory, and JSON responses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from lamina.errors import plural

BODY_LIMIT_BYTES = 10 * 10**6
# A body that is too large is read up to here and dropped: few clients read a response before they have sent everything.
READ_LIMIT_BYTES = 4 * BODY_LIMIT_BYTES
HELD_LIMIT_BYTES = 64 * 10**6  # of all requests together
BODY_SECONDS = 15.0
REQUEST_IMAGES = 64
JSON_MARKS = 8 * REQUEST_IMAGES  # commas, brackets and braces, which parse to objects many times their size
RETRY_AFTER = {"Retry-After": "1"}


class AsciiJson(JSONResponse):
    """JSON in ASCII, because names from data sets need not be valid UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> AsciiJson:
    return AsciiJson({"error": reason}, status, headers)


@dataclass
class Held:
    """Number of bytes in the bodies of all requests in progress."""

    size: int = 0

    @asynccontextmanager
    async def read_body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body, counted during the block; status 503 if all requests together exceed the limit."""
        own = 0

        def hold(size: int) -> None:
            nonlocal own
            if size > 0 and self.size + size > HELD_LIMIT_BYTES:
                raise HTTPException(503, "The server is busy. Try again later.", RETRY_AFTER)
            self.size, own = self.size + size, own + size

        try:
            yield await _read(request, hold)
        finally:
            self.size -= own


async def _read(request: Request, hold: Callable[[int], None]) -> bytearray:
    body = bytearray()  # grows in place: joining chunks would need the memory twice
    read = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                read += len(chunk)
                if read <= BODY_LIMIT_BYTES:
                    hold(len(chunk))
                    body += chunk
                elif body:
                    hold(-len(body))
                    body = bytearray()
                if read > READ_LIMIT_BYTES:
                    break
    except TimeoutError:
        raise HTTPException(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The client disconnected before the body was complete.") from None
    if read > BODY_LIMIT_BYTES:
        limit = f"{BODY_LIMIT_BYTES // 10**6} MB"
        raise HTTPException(413, f"The body exceeds {limit}. Send smaller or fewer images.")
    return body


async def read_images(content_type: str, body: bytearray, limit: int) -> tuple[Sequence[bytes | bytearray], bool]:
    """The encoded images in a body (JSON, or the bytes of one image), and whether they are a list."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return [body], False
    return await asyncio.to_thread(_parse_images, body, limit), True


def _parse_images(body: bytearray, limit: int) -> list[bytes]:
    too_many = HTTPException(
        413, f"The request has too many images; the limit is {plural(limit, 'image', 'images')}. Send several requests."
    )
    if sum(map(body.count, (b",", b"[", b"{"))) > JSON_MARKS:
        raise too_many
    try:
        texts = json.loads(body)["images"]
        if not isinstance(texts, list):
            raise TypeError
        if len(texts) > limit:
            raise too_many
        return [base64.b64decode(text, validate=True) for text in texts]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise HTTPException(400, 'Invalid body. Send JSON such as {"images": ["…"]}, each image in base64.') from None
