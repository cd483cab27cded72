"""The routes of the studio: the page, the stream of events, downloads, and the actions."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, make_dataclass, replace
from functools import cache
from inspect import signature
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from lamina.deploy.studio import data_actions, run_actions, training_actions
from lamina.deploy.studio.recipe_fields import name_field
from lamina.deploy.studio.run_actions import MADE_FILES
from lamina.deploy.studio.services import Studio
from lamina.deploy.web.bodies import (
    RETRY_AFTER,
    AsciiJson,
    handle_error,
    list_assets,
    read_body,
    refuse,
)
from lamina.deploy.web.torch_process import BusyError, ReplacedError
from lamina.errors import LaminaError, RunError
from lamina.values import from_json_values

REQUEST_BYTES = 100_000
IMAGE_BYTES = 32_000_000
IMAGE_TYPE = "application/octet-stream"
ASSETS = list_assets("lamina.deploy.web", "lamina.deploy.studio")
ACTIONS = data_actions.ACTIONS | training_actions.ACTIONS | run_actions.ACTIONS
"""The actions of the page, by ``POST /api/NAME`` with JSON, or with the bytes of an image and
values in the query: functions of the studio and of these values."""


def build_studio(studio: Studio) -> Starlette:
    async def stream(request: Request) -> Response:
        log = studio.jobs.log
        if log.is_closed:  # a page that asked again at once would do so without end
            return refuse(503, "The studio is ending. Start it again.")
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
        return await respond(studio, name, values)

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
    """The result of an action; ``RunError`` if the values do not have the types of its function."""
    if not isinstance(values, Mapping):
        raise RunError("The request is not an object. Reload the page.")
    action = ACTIONS[name]
    try:
        arguments = dict(vars(from_json_values(describe_values(action), values, name)))
    except ValueError as error:
        raise RunError(f"{error}. Change it, or reload the page.") from None
    return await action(replace(studio, replaces=arguments.pop("replaces")), **arguments)


@cache
def describe_values(action: Callable[..., Any]) -> type:
    """A dataclass of the values of a request, by the parameters of a function except the first."""
    fields: list[tuple[str, Any, Any]] = [("replaces", str, field(default=""))]
    for parameter in list(signature(action, eval_str=True).parameters.values())[1:]:
        default = MISSING if parameter.default is parameter.empty else parameter.default
        fields.append((parameter.name, parameter.annotation, field(default=default)))
    return make_dataclass("Values", fields, kw_only=True)


async def respond(studio: Studio, name: str, values: object) -> Response:
    try:
        return AsciiJson(await do(studio, name, values))
    except ReplacedError as error:
        return refuse(409, str(error))
    except BusyError as error:
        return refuse(503, str(error), RETRY_AFTER)
    except LaminaError as error:
        return refuse(422, name_field(error.problem, error.field))
    except UnicodeEncodeError:
        return refuse(422, "The request contains a character that cannot be used. Leave it out.")
    except OSError as error:
        reason = f"{str(error.filename)[:100]}: {str(error.strerror or error).lower()}"
        return refuse(422, f"Cannot use {reason}. Check the path and its permissions.")
    except Exception:  # a bug; the studio goes on
        traceback.print_exc()
        return refuse(500, "An unexpected error occurred; the studio printed it.")
