"""The routes of the studio: the page, the stream of events, downloads, and the actions."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from lamina.deploy.studio.actions import ACTIONS, MADE_FILES
from lamina.deploy.studio.arguments import describe_bad_value, read_arguments
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.events import Events
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.recipe_fields import name_field
from lamina.deploy.studio.studio import ReplacedError, Studio
from lamina.deploy.web.bodies import (
    AsciiJson,
    handle_error,
    list_assets,
    read_body,
    refuse,
)
from lamina.deploy.web.server import Address, open_socket, running
from lamina.errors import LaminaError, RunError

REQUEST_BYTES = 100_000
IMAGE_BYTES = 32_000_000
NOT_FINITE = (
    "The result contains NaN or infinity. Train the net again with a smaller learning rate."
)
IMAGE_TYPE = "application/octet-stream"
ASSETS = list_assets("lamina.deploy.web", "lamina.deploy.studio")


async def open_studio(
    folder: DataFolder, address: Address, announce: Callable[[str], None]
) -> list[str]:
    """Serve the studio until the task is cancelled; returns the runs that were in training.

    Calls ``announce`` with the URL once the studio is ready. The returned runs are saved.
    """
    studio = Studio(folder, Jobs(folder.runs_dir, Events()))
    app = build_studio(studio)
    open_paths = frozenset(route.path for route in ASSETS)
    unfinished: list[str] = []
    listens = (address.host, address.port)
    with suppress(asyncio.CancelledError), await open_socket(*listens) as listening:
        async with running(app, listening, address, open_paths) as (url, task):
            try:
                announce(url)
                await asyncio.shield(task)
            finally:
                unfinished = await studio.jobs.close()
                studio.close()
    return unfinished


def build_studio(studio: Studio) -> Starlette:
    async def stream(_: Request) -> Response:
        events = studio.jobs.events
        if events.is_closed:  # a page that asked again at once would do so without end
            return refuse(503, "The studio is ending. Start it again.")
        return StreamingResponse(events.open_stream(), media_type="text/event-stream")

    async def send_file(request: Request) -> Response:
        name = request.query_params.get("file", "")
        try:
            folder = studio.folder.find_run(request.query_params.get("run", ""))
        except RunError as error:
            return refuse(404, str(error))
        file = folder / name
        if name not in MADE_FILES or not file.is_file() or file.is_symlink():
            reason = f"{folder.name} has no file {name[:100]!r} to download. Make it first."
            return refuse(404, reason)
        return FileResponse(file, media_type=IMAGE_TYPE, filename=f"{folder.name}-{name}")

    async def act(request: Request) -> Response:
        values = await read_values(request)
        return await respond(studio, request.path_params["name"], values)

    routes = [
        *ASSETS,
        Route("/api/events", stream),
        Route("/api/file", send_file),
        Route("/api/{name}", act, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: handle_error})


async def read_values(request: Request) -> object:
    """The values of a request: JSON, or an image with other values in the query."""
    if request.headers.get("content-type") == IMAGE_TYPE:
        image = await read_body(request, IMAGE_BYTES)
        return {**request.query_params, "image": image}
    body = await read_body(request, REQUEST_BYTES)
    if b"\\u0000" in body:
        raise HTTPException(422, "The request contains a character of code 0. Leave it out.")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise HTTPException(400, "The request is not JSON.") from None


async def do(studio: Studio, name: str, values: object) -> Any:
    """The result of an action: of the studio itself, or computed by one of its threads."""
    if not isinstance(values, Mapping):
        raise RunError("The request is not an object. Reload the page.")
    arguments = {key: value for key, value in values.items() if key != "replaces"}
    if name in ACTIONS:
        action = ACTIONS[name]
        return await action(studio, **read_arguments(action, name, arguments))
    return await studio.compute(name, arguments, str(values.get("replaces", "")))


async def respond(studio: Studio, name: str, values: object) -> Response:
    try:
        return encode(await do(studio, name, values))
    except ReplacedError as error:
        return refuse(409, str(error))
    except LaminaError as error:
        return refuse(422, name_field(error.problem, error.field))
    except (OSError, UnicodeEncodeError) as error:
        return refuse(422, describe_bad_value(error))
    except Exception:  # a bug; the studio goes on
        traceback.print_exc()
        return refuse(500, "An unexpected error occurred; the studio printed it.")


def encode(result: Any) -> Response:
    try:
        return AsciiJson(result)
    except ValueError:
        return refuse(422, NOT_FINITE)
