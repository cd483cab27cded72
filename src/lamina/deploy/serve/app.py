"""The routes of ``lamina serve``: the API, health checks, and the page with its assets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lamina.deploy.serve.api import describe_api
from lamina.deploy.serve.worker import Worker
from lamina.deploy.web.bodies import (
    RETRY_AFTER,
    AsciiJson,
    handle_error,
    list_assets,
    read_body,
    read_files,
    refuse,
    wait_while_connected,
)
from lamina.deploy.web.torch_process import BusyError
from lamina.errors import LaminaError, suggest

REQUEST_IMAGES = 64
ASSETS = list_assets("lamina.deploy.web", "lamina.deploy.serve")
# need no token: they reveal nothing about the models
OPEN_PATHS = frozenset({*(route.path for route in ASSETS), "/openapi.json", "/healthz", "/readyz"})
Answer: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


def build_app(worker: Worker, limit_bytes: int, *, has_similar: bool) -> Starlette:

    async def get_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def get_readiness(_: Request) -> Response:
        if worker.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the worker process is starting\n", 503, RETRY_AFTER)

    async def get_models(_: Request) -> Response:
        tasks = list(answers)
        return AsciiJson({"models": worker.models, "tasks": tasks, "limit_bytes": limit_bytes})

    async def get_api(request: Request) -> Response:
        return AsciiJson(describe_api(request.app.routes))

    async def predict(request: Request) -> Response:
        """Predict images."""
        model = find_model(worker, request)
        images, is_list = await read_images(request, limit_bytes, REQUEST_IMAGES)
        responses = await wait_while_connected(request, worker.predict(model, images))
        if not is_list:
            return respond(responses[0])
        for response in responses:
            response.pop("status", None)
        return AsciiJson(responses)

    def look_closer(task: str) -> Answer:
        async def answer(request: Request) -> Response:
            model = find_model(worker, request)
            (image,), _ = await read_images(request, limit_bytes, 1)
            work = worker.look_closer(task, model, image)
            return respond(await wait_while_connected(request, work))

        return answer

    answers: dict[str, Answer] = {"predict": predict, "explain": look_closer("explain")}
    if has_similar:
        answers["similar"] = look_closer("similar")
    routes = [
        Route("/healthz", get_health),
        Route("/readyz", get_readiness),
        Route("/openapi.json", get_api),
        Route("/v1/model", get_models),
    ]
    routes += [Route(f"/v1/{task}", answers[task], methods=["POST"]) for task in answers]
    return Starlette(routes=[*routes, *ASSETS], exception_handlers=HANDLERS)


async def refuse_busy(_: Request, error: Exception) -> Response:
    return refuse(503, str(error), RETRY_AFTER)


async def refuse_failed(_: Request, error: Exception) -> Response:
    return refuse(500, str(error))


HANDLERS = {HTTPException: handle_error, BusyError: refuse_busy, LaminaError: refuse_failed}


def find_model(worker: Worker, request: Request) -> int:
    """The index of the model that a request names; by default the first."""
    names = [model["model"] for model in worker.models]
    name = request.query_params.get("model", names[0])
    if name not in names:
        short = name[:100]
        reason = f"This server has no model {short!r}. {suggest(short, names)}"
        raise HTTPException(404, reason)
    return names.index(name)


async def read_images(request: Request, limit_bytes: int, most: int) -> tuple[list[bytes], bool]:
    """The images in a request, and whether it is a form with several."""
    body = await read_body(request, limit_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        reason = "Send an image as the body, or a form of files, as in curl -F image=@cat.jpg."
        raise HTTPException(415, reason)
    if kind != "multipart/form-data":
        return [body], False
    images = await read_files(request, body, most)
    return images, len(images) > 1


def respond(response: dict[str, Any]) -> Response:
    status = response.pop("status", 200)
    if status in (404, 500, 503):
        headers = RETRY_AFTER if status == 503 else None
        raise HTTPException(status, response["problem"], headers)
    return AsciiJson(response, status)
