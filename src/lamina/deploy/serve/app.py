"""``lamina serve``: the API, health checks, and the page with its assets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lamina.deploy.serve.worker import BusyError, Worker
from lamina.deploy.web.bodies import (
    RETRY_AFTER,
    AsciiJson,
    handle_error,
    list_assets,
    read_body,
    refuse,
    send_bytes,
)
from lamina.deploy.web.server import Address, open_socket, running
from lamina.errors import suggest

ASSETS = list_assets("lamina.deploy.web", "lamina.deploy.serve")
# need no token: they reveal nothing about the models
OPEN_PATHS = frozenset({*(route.path for route in ASSETS), "/openapi.json", "/healthz", "/readyz"})
NO_IMAGE = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded")


def build_app(worker: Worker, limit_bytes: int) -> Starlette:
    async def get_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def get_readiness(_: Request) -> Response:
        if worker.process.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the process for predictions is starting\n", 503, RETRY_AFTER)

    async def get_models(_: Request) -> Response:
        return AsciiJson({"models": worker.models, "limit_bytes": limit_bytes})

    async def predict(request: Request) -> Response:
        model = find_model(worker, request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in NO_IMAGE:
            reason = "Send the image as the body, as in curl --data-binary @cat.jpg."
            raise HTTPException(415, reason)
        image = await read_body(request, limit_bytes)
        return respond(await worker.predict(model, image))

    openapi = files(__package__).joinpath("openapi.json").read_bytes()
    routes = [
        Route("/healthz", get_health),
        Route("/readyz", get_readiness),
        Route("/openapi.json", send_bytes(openapi, "application/json")),
        Route("/v1/model", get_models),
        Route("/v1/predict", predict, methods=["POST"]),
    ]
    handlers = {HTTPException: handle_error, BusyError: refuse_busy}
    return Starlette(routes=[*routes, *ASSETS], exception_handlers=handlers)


async def refuse_busy(_: Request, error: Exception) -> Response:
    return refuse(503, str(error), RETRY_AFTER)


def find_model(worker: Worker, request: Request) -> int:
    """The index of the model that a request names; by default the first."""
    names = [model["model"] for model in worker.models]
    name = request.query_params.get("model", names[0])
    if name not in names:
        short = name[:100]
        reason = f"This server has no model {short!r}. {suggest(short, names)}"
        raise HTTPException(404, reason)
    return names.index(name)


def respond(response: dict[str, Any]) -> Response:
    status = response.get("status", 200)
    if status in (500, 503):
        headers = RETRY_AFTER if status == 503 else None
        raise HTTPException(status, response["problem"], headers)
    return AsciiJson({name: response[name] for name in response if name != "status"}, status)


async def serve(
    worker: Worker, address: Address, limit_bytes: int, announce: Callable[[str], None]
) -> None:
    """Serve until the task is cancelled; calls ``announce`` with the URL when ready."""
    with await open_socket(address.host, address.port) as listening:
        working = None
        try:
            await worker.start()
            working = asyncio.create_task(worker.work())
            app = build_app(worker, limit_bytes)
            async with running(app, listening, address, OPEN_PATHS) as (url, task):
                announce(url)
                done, _ = await asyncio.wait({task, working}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
        finally:
            if working is not None:
                working.cancel()
                await asyncio.wait([working])
            await worker.process.close()
