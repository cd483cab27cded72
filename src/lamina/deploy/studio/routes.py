"""The routes of the studio: the page, the stream of events, downloads, and the actions."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from lamina.deploy.studio import data_actions, run_actions, training_actions
from lamina.deploy.studio.run_actions import MADE_FILES
from lamina.deploy.studio.studio import Studio
from lamina.deploy.web.bodies import (
    RETRY_AFTER,
    AsciiJson,
    handle_error,
    read_body,
    refuse,
    serve_asset,
    wait_while_connected,
)
from lamina.deploy.web.torch_process import BusyError, ReplacedError
from lamina.errors import LaminaError, RunError
from lamina.values import from_json_values

REQUEST_BYTES = 100_000
IMAGE_BYTES = 32_000_000
IMAGE_TYPE = "application/octet-stream"
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PACKAGES = ("lamina.deploy.web", "lamina.deploy.studio")


class Action(Protocol):
    """What the page asks for: a frozen dataclass of its values."""

    async def act(self, studio: Studio) -> Any: ...


ACTIONS: dict[str, type[Action]] = {
    **data_actions.ACTIONS,
    **training_actions.ACTIONS,
    **run_actions.ACTIONS,
}
"""What the page asks for, by ``POST /api/NAME`` with JSON, or with the bytes of an image and values
in the query."""


def list_assets() -> dict[str, tuple[str, str, str]]:
    """The page's files with packages and types: the only files that the server reads."""
    assets = {}
    for package in PACKAGES:
        for file in files(package).joinpath("page").iterdir():
            ending = file.name.rpartition(".")[2]
            if ending in TYPES:
                path = "/" if file.name == "index.html" else f"/{file.name}"
                assets[path] = (package, file.name, TYPES[ending])
    return assets


def build_studio(studio: Studio) -> Starlette:
    async def stream(request: Request) -> Response:
        log = studio.jobs.log
        if log.is_closed:  # a page that asked again at once would do so without end
            return refuse(503, "The studio is ending in its terminal. Start lamina studio again.")
        mark = request.headers.get("last-event-id") or log.mark(0)
        return StreamingResponse(log.stream(mark), media_type="text/event-stream")

    async def send_file(request: Request) -> Response:
        name = request.query_params.get("file", "")
        try:
            folder = studio.find_run(request.query_params.get("run", ""))
        except RunError as error:
            return refuse(404, str(error))
        file = folder / name
        if name not in MADE_FILES or not file.is_file() or file.is_symlink():
            reason = f"{folder.name} has no file {name[:100]!r} to download. Make it first."
            return refuse(404, reason)
        return FileResponse(file, media_type=IMAGE_TYPE, filename=f"{folder.name}-{name}")

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ACTIONS:
            raise HTTPException(404, f"The studio has no {name[:100]!r}.")
        values = await read_values(request)
        return await wait_while_connected(request, respond(studio, name, values))

    routes = [Route(path, serve_asset(*asset)) for path, asset in list_assets().items()]
    routes += [
        Route("/api/events", stream),
        Route("/api/file", send_file),
        Route("/api/{name}", act, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: handle_error})


async def read_values(request: Request) -> object:
    """The values of a request: JSON, or an image with the others in the query."""
    if request.headers.get("content-type") == IMAGE_TYPE:
        image = await read_body(request, IMAGE_BYTES)
        return {**request.query_params, "image": image}
    body = await read_body(request, REQUEST_BYTES)
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise HTTPException(400, "The request is not JSON.") from None


def read_action(name: str, values: object) -> Action:
    """An action with its values; ``RunError`` if they do not have the types of its fields."""
    if not isinstance(values, Mapping):
        raise RunError("The request is not an object. Reload the page.")
    if any("\0" in text for text in list_texts(values)):
        raise RunError("The request contains a character of code 0. Leave it out.")
    try:
        return from_json_values(ACTIONS[name], values, name)
    except ValueError as error:
        raise RunError(f"{error}. Change it, or reload the page.") from None


def list_texts(value: object) -> list[str]:
    """All texts in a value from JSON."""
    if isinstance(value, str):
        return [value]
    parts: list[object] = []
    if isinstance(value, Mapping):
        parts = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    return [text for part in parts for text in list_texts(part)]


async def respond(studio: Studio, name: str, values: object) -> Response:
    try:
        return AsciiJson(await read_action(name, values).act(studio))
    except ReplacedError as error:
        return refuse(409, str(error))
    except BusyError as error:
        return refuse(503, str(error), RETRY_AFTER)
    except LaminaError as error:
        return refuse(422, str(error))
    except OSError as error:
        reason = f"{str(error.filename)[:100]}: {str(error.strerror or error).lower()}"
        return refuse(422, f"Cannot use {reason}. Check the path and its permissions.")
    except Exception:  # a bug; the studio goes on
        traceback.print_exc()
        return refuse(500, "An unexpected error occurred; the terminal of the studio shows it.")
