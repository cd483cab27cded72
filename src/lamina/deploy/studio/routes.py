"""The routes of the studio: the page, the stream of events, and what the page asks for."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from lamina import zoo
from lamina.deploy.serve.app import handle_error, serve_asset
from lamina.deploy.serve.bodies import AsciiJson, Held, refuse
from lamina.deploy.serve.security import ASSETS
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.net_cards import list_layers, list_presets, show_net, split_text
from lamina.deploy.studio.requests import (
    Values,
    check_fields,
    check_time,
    check_values,
    list_fields,
    write_options,
)
from lamina.deploy.studio.torch_process import TorchProcess
from lamina.errors import LaminaError, RunError, suggest
from lamina.files import check_name

REQUEST_BYTES, IMAGE_BYTES = 1_000_000, 32_000_000
IMAGE_TYPE = "application/octet-stream"
# in a run, made by these commands, and downloaded
MADE_FILES = {"report.html": "report", "model.onnx": "export"}
SHARED = "/request.js", "/view.js"  # with the page of lamina serve
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}

Action: TypeAlias = Callable[["Studio", Values], Awaitable[Any]]


@dataclass(frozen=True, eq=False)
class Studio:
    """What all routes share."""

    data: DataFolder
    jobs: Jobs
    quick: TorchProcess
    slow: TorchProcess  # for what may take long, so that the page need not wait for it

    def find_run(self, name: str) -> Path:
        """The folder of a run by its name, such as ``first`` or ``study/fold-1``."""
        parts = name.split("/")
        is_below = (
            len(parts) < 3
            and all(part and not part.startswith(".") for part in parts)
            and "\\" not in name
        )
        # Path.is_file raises for names that are too long
        if is_below and os.path.isfile(self.data.runs_dir / name / "run.json"):  # noqa: PTH113
            return self.data.runs_dir / name
        known = sorted(file.parent.name for file in self.data.runs_dir.glob("*/run.json"))
        others = suggest(name[:100], known) if known else "Train one."
        raise RunError(f"There is no run {name[:100]!r} in {self.data.runs_dir}. {others}")

    def choose_name(self, given: str, first: str) -> str:
        """Reserve a new run's name: ``given`` if free, or ``first`` and the first free number."""
        taken = {job.run for job in self.jobs.jobs if job.is_active}

        def reserve(name: str) -> bool:
            return (
                name not in taken
                and not (self.data.runs_dir / name).exists()
                and self.jobs.reserve(name)
            )

        # unlike names of lamina train, it begins with no date, so that neither takes the other's
        if not given:
            names = (f"{first}-{number}" for number in itertools.count(1))
            return next(filter(reserve, names))
        check_name(given)
        if reserve(given):
            return given
        if given in taken or (self.data.runs_dir / given).exists():
            raise RunError(
                f"There is already a run {given}. Use another name, or select the run to"
                " continue it."
            )
        mark = self.data.runs_dir / f".{given}"
        raise RunError(
            f"{given} is reserved for a training of another studio. Use another name; if no other"
            f" studio runs, remove {mark}."
        )


async def get_state(studio: Studio, _: Values) -> dict[str, Any]:
    """Everything that the page needs to start, or to start again."""
    # before the runs, which take a while to list
    after = studio.jobs.log.mark(studio.jobs.log.last)
    runs = await studio.quick.call("run_views.list_runs", studio.data.runs_dir)
    return {
        "data": await asyncio.to_thread(studio.data.list_sources),
        "presets": list_presets(),
        "layers": list_layers(),
        "fields": list_fields(),
        "jobs": [job.to_json() for job in studio.jobs.jobs],
        "runs": runs,
        "after": after,
    }


async def get_net(_: Studio, given: Values) -> dict[str, Any]:
    """The cards of a net, from its Python or from edited cards."""
    try:
        layers = split_text(given["text"]) if "text" in given else list(map(str, given["cards"]))
    except LaminaError as error:
        return {"cards": None, "problem": str(error)}
    shape = tuple(given["shape"]) if "shape" in given else None
    return await asyncio.to_thread(show_net, layers, shape, given.get("outputs"))


async def time_net(studio: Studio, given: Values) -> Any:
    if any(job.is_active and job.is_training for job in studio.jobs.jobs):
        raise RunError("The layers are not timed while a net trains.")
    return await studio.slow.call(
        "data_views.time_layers", given["text"], tuple(given["shape"]), given["outputs"]
    )


async def inspect_data(studio: Studio, given: Values) -> dict[str, Any]:
    """Start ``lamina data``, whose result is an event."""
    check = ["labels"] if given.get("labels") else []
    words = ["data", *check, studio.data.check(given["source"]), *_load(studio, given)]
    checked = (
        {name: given[name] for name in ("source", "size_px", "val") if name in given}
        if check
        else None
    )
    is_corrected = studio.data.find_corrections(
        given["source"]
    ).exists()  # the page must be able to undo it
    return studio.jobs.start(words, is_training=bool(check), checked=checked).to_json() | {
        "is_corrected": is_corrected
    }


def _load(studio: Studio, given: Values) -> list[str]:
    """Options that load the data set as the page shows it, with the labels corrected there."""
    _, size_px, val, corrections = _describe(studio, given)
    options = {"size": size_px, "val": val, "labels-from": corrections}
    return [f"--{name}={value}" for name, value in options.items() if value]


def _describe(studio: Studio, given: Values) -> tuple[str, int | None, str | None, str | None]:
    """The arguments of ``data_views.load_source``."""
    file = studio.data.find_corrections(given["source"])
    corrections = str(file) if file.exists() else None
    return (
        studio.data.check(given["source"]),
        given.get("size_px"),
        given.get("val") or None,
        corrections,
    )


async def correct_labels(studio: Studio, given: Values) -> dict[str, str]:
    return studio.data.correct(given["source"], given.get("choices"))


async def train(studio: Studio, given: Values) -> dict[str, Any]:
    """Start ``lamina train`` with what the page shows."""
    net = given.get("net") or ""
    if net and net not in zoo.NAMES:
        net = ", ".join(split_text(net))  # neither an option nor a file, which lamina would execute
    words = [
        "train",
        *([net] if net else []),
        f"--data={studio.data.check(given['source'])}",
        *_load(studio, given),
    ]
    words += [f"--recipe={given['recipe']}"] if net and given.get("recipe") else []
    words += [f"--time={check_time(given['time'])}"] if given.get("time") else []
    words += write_options(check_fields(given))
    run = studio.choose_name(
        given.get("name", ""), "chosen" if not net else net if net in zoo.NAMES else "net"
    )
    words += [f"--name={run}", f"--runs-dir={studio.data.runs_dir}"]
    return studio.jobs.start(words, run, is_training=True).to_json()


async def resume(studio: Studio, given: Values) -> dict[str, Any]:
    """Start ``lamina resume`` for a run that is not in training."""
    words = "resume", str(studio.find_run(given["run"]))
    return (
        studio.jobs.find_active(given["run"])
        or studio.jobs.start(words, given["run"], is_training=True)
    ).to_json()


async def stop(studio: Studio, given: Values) -> dict[str, Any]:
    """Pause a training (it saves itself), or let it finish now."""
    job = studio.jobs.find_active(given.get("run"), given.get("number"))
    if job is None:
        raise RunError(f"{given.get('run', 'This')[:100]} has already ended.")
    studio.jobs.stop(job, is_finishing=bool(given.get("is_finishing")))
    return job.to_json()


async def continue_run(studio: Studio, given: Values) -> dict[str, Any]:
    """Start ``lamina train --start-from RUN@EPOCH``."""
    path, epoch, fields = studio.find_run(given["run"]), given["epoch"], check_fields(given)
    await studio.quick.call("run_views.check_start", path, epoch, fields)
    run = studio.choose_name("", f"{path.name}-from-{epoch:g}")
    start = f"--start-from={path.resolve()}@{epoch:.10g}"
    places = [f"--name={run}", f"--runs-dir={studio.data.runs_dir}"]
    words = ["train", start, *write_options(fields), *places]
    return studio.jobs.start(words, run, is_training=True).to_json()


READ: dict[str, Callable[[Studio, Values], Sequence[Any]]] = {
    "folder": lambda studio, _: [studio.data.path],
    "new folder": lambda studio, given: [studio.data.check_new(given["set"])],
    "data": _describe,
    "uncorrected data": lambda studio, given: _describe(studio, given)[:3],
    "runs folder": lambda studio, _: [studio.data.runs_dir],
    "run": lambda studio, given: [studio.find_run(given["run"])],
    "run name": lambda studio, given: [studio.find_run(given["run"]) and given["run"]],
    "others": lambda studio, given: [
        [name for name in given["others"] if studio.find_run(str(name))]
    ],
    # The uploaded bytes, or the place of an image in the data of the run.
    "sight": lambda _, given: [
        given["image"] if "image" in given else (given["split"], given["row"])
    ],
}
"""The arguments of functions that are more than values of a request."""


def compute(function: str, *names: str, is_quick: bool = False) -> Action:
    """An action that calls a function of a torch process with arguments of these names."""

    def read(studio: Studio, given: Values) -> list[Any]:
        return [
            one
            for name in names
            for one in (READ[name](studio, given) if name in READ else [given[name]])
        ]

    async def act(studio: Studio, given: Values) -> Any:
        arguments = await asyncio.to_thread(read, studio, given)  # which may look into many folders
        return await (studio.quick if is_quick else studio.slow).call(function, *arguments)

    return act


async def make_file(studio: Studio, given: Values) -> dict[str, Any]:
    """Start the command that writes one of the ``MADE_FILES`` of a run."""
    path, file = studio.find_run(given["run"]), given["file"]
    if file not in MADE_FILES:
        raise RunError(f"The studio cannot make {file[:100]!r}. Choose {' or '.join(MADE_FILES)}.")
    return studio.jobs.start([MADE_FILES[file], str(path), str(path / file)]).to_json()


async def list_files(studio: Studio, given: Values) -> dict[str, int]:
    """The sizes in bytes of the files that were made."""
    files = [studio.find_run(given["run"]) / name for name in MADE_FILES]
    return {file.name: file.stat().st_size for file in files if file.exists()}


ACTIONS: dict[str, Action] = {
    "state": get_state,
    "net": get_net,
    "times": time_net,
    "inspect": inspect_data,
    "preview": compute("data_views.preview_data", "data", is_quick=True),
    "train": train,
    "resume": resume,
    "stop": stop,
    "continue": continue_run,
    "run": compute("run_views.describe_run", "runs folder", "run name", is_quick=True),
    "runs": compute("run_views.list_runs", "runs folder", is_quick=True),
    "checkpoints": compute("run_views.list_epochs", "run", is_quick=True),
    "report": compute("results.show_report", "run"),
    "cell": compute("results.show_cell", "run", "problem", "truth", "predicted"),
    "units": compute("results.show_units", "run", "layer"),
    "look": compute("results.look_at", "run", "sight"),
    "explain": compute("results.explain", "run", "sight"),
    "similar": compute("results.find_similar", "run", "sight"),
    "compare": compute("results.compare_with", "runs folder", "run name", "others"),
    "repeat": compute("reproduction.describe_reproduction", "run"),
    "make": make_file,
    "files": list_files,
    "images": compute("data_views.draw_images", "uncorrected data", "images", is_quick=True),
    "correct": correct_labels,
    "save-image": compute(
        "dropped_images.save_image", "new folder", "set", "class", "image", is_quick=True
    ),
    "remove-image": compute(
        "dropped_images.remove_image", "folder", "set", "class", "file", is_quick=True
    ),
    "set": compute("dropped_images.list_images", "folder", "set", is_quick=True),
}
"""What the page asks for, by ``POST /api/NAME`` with JSON, or with the bytes of an image and values
in the query."""


def list_assets() -> dict[str, tuple[str, str]]:
    """The page's files with their types, by URL path: the only files that the server reads."""
    names = sorted(file.name for file in files(__package__).joinpath("page").iterdir())
    served = {
        name: (name, TYPES[name.rpartition(".")[2]])
        for name in names
        if name.rpartition(".")[2] in TYPES
    }
    shared = {path: ASSETS[path] for path in SHARED}
    return (
        {"/": served["index.html"]} | {f"/{name}": asset for name, asset in served.items()} | shared
    )


def build_studio(studio: Studio) -> Starlette:
    held, held_images = Held(REQUEST_BYTES), Held(IMAGE_BYTES)

    async def stream(request: Request) -> Response:
        log = studio.jobs.log
        if log.is_closed:  # a page that asked again at once would do so without end
            return refuse(503, "The studio is ending in its terminal. Start lamina studio again.")
        mark = request.headers.get("last-event-id") or log.mark(0)
        return StreamingResponse(log.stream(mark), media_type="text/event-stream")

    async def send_file(request: Request) -> Response:
        name = request.query_params.get("file")
        try:
            file = studio.find_run(request.query_params.get("run", "")) / str(name)
        except RunError as error:
            return refuse(404, str(error))
        if name not in MADE_FILES or not file.is_file() or file.is_symlink():
            return refuse(
                404,
                f"{file.parent.name} has no file {str(name)[:100]!r} to download. Make it first.",
            )
        return FileResponse(file, media_type=IMAGE_TYPE, filename=f"{file.parent.name}-{name}")

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ACTIONS:
            raise HTTPException(404, f"The studio has no {name[:100]!r}.")
        is_image = request.headers.get("content-type") == IMAGE_TYPE
        async with (held_images if is_image else held).read_body(request) as body:
            try:
                given = (
                    {**request.query_params, "image": bytes(body)}
                    if is_image
                    else json.loads(body or b"{}")
                )
            except (ValueError, RecursionError):
                raise HTTPException(400, "The request is not JSON.") from None
            return await _respond(studio, ACTIONS[name], given)

    return Starlette(
        routes=[
            *(
                Route(
                    path,
                    serve_asset(
                        "lamina.deploy.serve" if path in SHARED else str(__package__), *asset
                    ),
                )
                for path, asset in list_assets().items()
            ),
            Route("/api/events", stream),
            Route("/api/file", send_file),
            Route("/api/{name}", act, methods=["POST"]),
        ],
        exception_handlers={HTTPException: handle_error},
    )


async def _respond(studio: Studio, action: Action, given: object) -> AsciiJson:
    try:
        found = await action(studio, check_values(given))
    except LaminaError as error:
        return refuse(422, str(error))
    except OSError as error:
        reason = f"{str(error.filename)[:100]}: {str(error.strerror or error).lower()}"
        return refuse(422, f"Cannot use {reason}. Check the path and its permissions.")
    except Exception:  # a bug; the studio goes on
        traceback.print_exc()
        return refuse(500, "An unexpected error occurred; the terminal of the studio shows it.")
    try:
        return AsciiJson(found)
    except ValueError:
        return refuse(
            422,
            "The result contains NaN or infinity. Train the net again with a smaller learning"
            " rate.",
        )
