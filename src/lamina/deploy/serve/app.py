"""The routes: the API, health checks and metrics, and the page with its assets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lamina.deploy.serve.bodies import (
    REQUEST_IMAGES,
    RETRY_AFTER,
    AsciiJson,
    Held,
    read_images,
    refuse,
)
from lamina.deploy.serve.counters import Metrics
from lamina.deploy.serve.security import ASSETS, TASKS
from lamina.deploy.serve.worker import FullError, Worker
from lamina.errors import suggest


def build_app(worker: Worker, metrics: Metrics, limit_bytes: int, has_similar: bool) -> Starlette:
    held = Held(limit_bytes)
    tasks = [task for task in TASKS if has_similar or task != "similar"]

    async def get_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def get_readiness(_: Request) -> Response:
        if worker.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the worker process is starting\n", 503, RETRY_AFTER)

    async def get_metrics(_: Request) -> Response:
        gauges = {
            "lamina_queue_images": worker.waiting,
            "lamina_held_bytes": held.size,
            "lamina_worker_ready": worker.is_ready,
            "lamina_worker_restarts_total": worker.restarts,
        }
        return PlainTextResponse(metrics.format(gauges), media_type="text/plain; version=0.0.4")

    async def get_models(_: Request) -> Response:
        limits = {"tasks": tasks, "limit_bytes": limit_bytes, "coverage": worker.coverage}
        return AsciiJson({"models": worker.models, **limits})

    return Starlette(
        routes=[
            *(
                Route(path, serve_asset("lamina.deploy.serve", *asset))
                for path, asset in ASSETS.items()
            ),
            Route("/healthz", get_health),
            Route("/readyz", get_readiness),
            Route("/metrics", get_metrics),
            Route("/v1/model", get_models),
            *(
                Route(f"/v1/{task}", partial(_compute, worker, metrics, held), methods=["POST"])
                for task in tasks
            ),
        ],
        exception_handlers={HTTPException: handle_error},
    )


async def _compute(worker: Worker, metrics: Metrics, held: Held, request: Request) -> Response:
    names, task = [model["model"] for model in worker.models], request.url.path.removeprefix("/v1/")
    name = request.query_params.get("model", names[0])
    if name not in names:
        raise HTTPException(
            404, f"This server has no model {name[:100]!r}. {suggest(name[:100], names)}"
        )
    limit = REQUEST_IMAGES if task == "predict" else 1
    async with held.read_body(request) as body:
        images, is_list = await read_images(request.headers.get("content-type", ""), body, limit)
        del body  # the images of a list are copies
        try:
            futures = worker.submit(
                task, names.index(name), [image for image in images if image is not None]
            )
        except FullError:
            raise HTTPException(503, "The queue is full. Try again later.", RETRY_AFTER) from None
        found = iter(await _wait_for(futures, request))
    bad = {"model": name, "problem": "not base64", "status": 422}
    responses = [dict(bad) if image is None else next(found) for image in images]
    metrics.count_images(name, task, len(responses))
    statuses = [response.pop("status", 200) for response in responses]
    if is_list:
        return AsciiJson(responses)
    if statuses[0] in (404, 500, 503):
        headers = RETRY_AFTER if statuses[0] == 503 else None
        raise HTTPException(statuses[0], responses[0]["problem"], headers)
    return AsciiJson(responses[0], statuses[0])


def serve_asset(
    package: str, name: str, media_type: str
) -> Callable[[Request], Awaitable[Response]]:
    """A handler that sends a file of a package's page."""
    content = files(package).joinpath("page", name).read_bytes()

    async def respond(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return respond


async def _wait_for(
    futures: Sequence[asyncio.Future[dict[str, Any]]], request: Request
) -> list[dict[str, Any]]:
    """The responses; cancels the jobs of a client that disconnects or waits too long."""

    async def notice_leaving() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        for future in futures:
            future.cancel()

    noticing = asyncio.create_task(notice_leaving())
    try:
        return await asyncio.gather(*futures)
    except asyncio.CancelledError:
        if noticing.done():
            raise HTTPException(400, "The client disconnected before the response.") from None
        raise
    finally:
        noticing.cancel()


async def handle_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return refuse(error.status_code, error.detail, error.headers)
