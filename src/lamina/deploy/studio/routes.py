"""The routes of the studio: the page, the stream of events, and what the page asks for."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from lamina import zoo
from lamina.deploy.serve.bodies import AsciiJson, Held, refuse
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.net_cards import list_layers, list_presets, show_net, split_text, write_layer
from lamina.deploy.studio.torch_process import TorchProcess
from lamina.errors import LaminaError, RunError, suggest
from lamina.training.recipe import Recipe
from lamina.values import read_texts

Values: TypeAlias = dict[str, Any]
Action: TypeAlias = Callable[["Studio", Values], Awaitable[Any]]
LONGEST_TEXT = 20_000  # characters
REQUEST_BYTES, IMAGE_BYTES = 1_000_000, 32_000_000
COMPUTE_SECONDS = 80.0  # for a map of a slow net and how faithful it is
IMAGE_TYPE = "application/octet-stream"
MADE_FILES = "report.html", "model.onnx"  # in the folder of a run, made and downloaded on request
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
MAIN_FIELDS = (
    *("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "label_smoothing", "dropout", "flip"),
    *("translate_px", "cutout_px", "gradient_clip", "class_weights", "patience", "seed"),
)


@dataclass(frozen=True, eq=False)
class Studio:
    """What all routes share."""

    data: DataFolder
    runs_dir: Path
    log: EventLog
    jobs: Jobs
    torch: TorchProcess
    slow: TorchProcess  # for what may take long, so that the page need not wait for it

    def find_run(self, name: object) -> Path:
        """The folder of a run, by its name in the folder of the runs."""
        known = sorted(file.parent.name for file in self.runs_dir.glob("*/run.json"))
        if name not in known:
            raise RunError(f"There is no run {str(name)[:100]!r} in {self.runs_dir}. {suggest(str(name)[:100], known)}")
        return self.runs_dir / str(name)

    def choose_name(self, given: str, first: str) -> str:
        """The name of a new run: the given one, or ``first`` and the first free number."""
        if given:
            return given
        taken = {job.run for job in self.jobs.jobs}
        names = (f"{first}-{number}" for number in itertools.count(1))
        return next(name for name in names if name not in taken and not (self.runs_dir / name).exists())


async def get_state(studio: Studio, _: Values) -> Values:
    """Everything that the page needs to start, or to start again."""
    runs = await studio.torch.call("run_views.list_runs", studio.runs_dir)
    return {
        "data": studio.data.list_sources(),
        "presets": list_presets(),
        "layers": list_layers(),
        "fields": list_fields(),
        "jobs": [job.to_json() for job in studio.jobs.jobs],
        "runs": runs,
        "after": studio.log.mark(studio.log.last),
    }


def list_fields() -> list[Values]:
    """The fields of a recipe, with text, default and choices; the main ones first."""
    texts, types = read_texts(Recipe), get_type_hints(Recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    return [
        {
            "name": name,
            "is_main": name in MAIN_FIELDS,
            "text": texts.get(name, ""),
            "default": str(defaults[name]),
            "choices": ["False", "True"] if types[name] is bool else _find_choices(types[name]),
        }
        for name in dict.fromkeys((*MAIN_FIELDS, *defaults))
    ]


def _find_choices(kind: Any) -> list[str]:
    return list(get_args(kind)) if get_origin(kind) is Literal else []


async def get_net(_: Studio, given: Values) -> Values:
    """The cards of a net, from its Python or from edited cards."""
    try:
        layers = split_text(given["text"]) if "text" in given else [write_layer(card) for card in given["cards"]]
    except LaminaError as error:
        return {"cards": None, "problem": str(error)}
    shape = None if given.get("shape") is None else tuple(given["shape"])
    return await asyncio.to_thread(show_net, layers, shape, given.get("outputs"))


async def time_net(studio: Studio, given: Values) -> list[float]:
    times: list[float] = await studio.slow.call("data_views.time_layers", given["text"], *_describe(studio, given))
    return times


async def inspect_data(studio: Studio, given: Values) -> Values:
    """Start ``lamina data``, whose result is an event."""
    check = ["--labels"] if given.get("labels") else []
    words = ["data", studio.data.check(given["source"]), *_load(studio, given), *check]
    return studio.jobs.start(words, is_training=bool(check)).to_json()


async def preview_data(studio: Studio, given: Values) -> Any:
    return await studio.torch.call("data_views.preview_data", *_describe(studio, given))


async def draw_images(studio: Studio, given: Values) -> Any:
    return await studio.torch.call("data_views.draw_images", *_describe(studio, given), given["images"])


def _load(studio: Studio, given: Values) -> list[str]:
    """Options that load the data set as the page shows it, with the labels that were corrected there."""
    file = studio.data.find_corrections(given["source"])
    options = {"size": given.get("size_px"), "val": given.get("val"), "labels-from": file if file.exists() else None}
    return [f"--{name}={value}" for name, value in options.items() if value]


def _describe(studio: Studio, given: Values) -> tuple[Any, ...]:
    """The same as arguments of ``data_views.load_source``."""
    file = studio.data.find_corrections(given["source"])
    corrections = file.read_text("utf-8") if file.exists() else ""
    return studio.data.check(given["source"]), given.get("size_px"), given.get("val") or None, corrections


async def correct_labels(studio: Studio, given: Values) -> Values:
    return studio.data.correct(given["source"], given["choices"])


async def save_image(studio: Studio, given: Values) -> Any:
    place = studio.data.check_new(given["set"]), given["set"], given["class"], given["image"]
    return await studio.torch.call("dropped_images.save_image", *place)


async def list_set(studio: Studio, given: Values) -> Any:
    return await studio.torch.call("dropped_images.list_images", studio.data.path, given["set"])


async def remove_image(studio: Studio, given: Values) -> Any:
    place = studio.data.path, given["set"], given["class"], given["file"]
    return await studio.torch.call("dropped_images.remove_image", *place)


async def train(studio: Studio, given: Values) -> Values:
    """Start ``lamina train`` with what the page shows."""
    check_texts(given, "net", "source", "recipe", "time", "name", "val")
    net = given.get("net") or ""
    if net and net not in zoo.NAMES:
        net = ", ".join(split_text(net))  # neither an option nor a file, which lamina would execute
    words = ["train", *([net] if net else []), f"--data={studio.data.check(given['source'])}", *_load(studio, given)]
    words += [f"--recipe={given['recipe']}"] if net and given.get("recipe") else []
    words += [f"--time={given['time']}"] if given.get("time") else []
    for name, text in check_fields(given).items():
        flag = name.replace("_", "-")
        words.append(f"--{'no-' * (text == 'False')}{flag}" if text in ("True", "False") else f"--{flag}={text}")
    short = "chosen" if not net else net if re.fullmatch(r"[\w-]+", net) else "net"
    run = studio.choose_name(given.get("name", ""), f"{date.today().isoformat()}-{short}")
    words += [f"--name={run}", f"--runs-dir={studio.runs_dir}"]
    return studio.jobs.start(words, run, is_training=True).to_json()


def check_texts(given: Values, *names: str) -> None:
    """Raise ``RunError`` unless these values are texts that a command can be given."""
    for name in names:
        value = given.get(name, "")
        if not isinstance(value, str) or "\0" in value or len(value) > LONGEST_TEXT:
            raise RunError(f"{name} is {value!r:.60}; it must be a text. Change it, or leave it out.")


def check_fields(given: Values) -> dict[str, str]:
    """The fields of a recipe that were given, as texts by name."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in (texts := given.get("fields", {})):
        if name not in known:
            raise RunError(f"A recipe has no field {str(name)[:100]!r}. {suggest(str(name)[:100], known)}")
    check_texts(texts, *texts)
    return dict(texts)


async def resume(studio: Studio, given: Values) -> Values:
    """Start ``lamina resume`` for a run that is not in training."""
    path = studio.find_run(given["run"])
    if job := studio.jobs.find_active(path.name):
        return job.to_json()
    return studio.jobs.start(["resume", str(path)], path.name, is_training=True).to_json()


async def stop(studio: Studio, given: Values) -> Values:
    """Pause a training (it saves itself), or let it finish now."""
    job = studio.jobs.find_active(given.get("run"), given.get("number"))
    if job is None:
        raise RunError(f"{str(given.get('run', 'This'))[:100]} has already ended.")
    studio.jobs.stop(job, is_finishing=bool(given.get("is_finishing")))
    return job.to_json()


async def branch(studio: Studio, given: Values) -> Values:
    """Create a branch of a run and train it."""
    path = studio.find_run(given["run"])
    name = studio.choose_name(given.get("name", ""), path.name)
    made = await studio.torch.call(
        "run_views.make_branch",
        path,
        given["file"],
        int(given["steps"]),
        check_fields(given),
        given.get("net", ""),
        name,
        studio.runs_dir,
    )
    return studio.jobs.start(["resume", str(studio.runs_dir / made)], made, is_training=True).to_json()


async def get_run(studio: Studio, given: Values) -> Any:
    return await studio.torch.call("run_views.describe_run", studio.find_run(given["run"]))


async def get_checkpoints(studio: Studio, given: Values) -> Any:
    return await studio.torch.call("run_views.find_checkpoints", studio.find_run(given["run"]))


async def get_runs(studio: Studio, _: Values) -> Any:
    return await studio.torch.call("run_views.list_runs", studio.runs_dir)


def compute(function: str, read: Callable[[Values], Sequence[Any]] = lambda _: ()) -> Action:
    """An action that calls a function of the torch process with a run's folder and what ``read`` finds in a request."""

    async def act(studio: Studio, given: Values) -> Any:
        return await studio.slow.call(function, studio.find_run(given["run"]), *read(given), seconds=COMPUTE_SECONDS)

    return act


def read_image(given: Values) -> Sequence[Any]:
    """The uploaded bytes, or the place of an image in the data of the run."""
    image = given.get("image")
    return [image] if isinstance(image, bytes) else [(str(given["split"]), int(given["row"]))]


async def compare(studio: Studio, given: Values) -> Any:
    others = [studio.find_run(name) for name in given["others"]]
    return await studio.torch.call("results.compare_with", studio.find_run(given["run"]), others)


async def make_file(studio: Studio, given: Values) -> Values:
    """Start the command that writes one of the ``MADE_FILES`` of a run."""
    path = str(studio.find_run(given["run"]))
    words = {"report.html": ["report", path], "model.onnx": ["export", path, f"{path}/model.onnx"]}[given["file"]]
    return studio.jobs.start(words).to_json()


async def list_files(studio: Studio, given: Values) -> dict[str, int]:
    """The sizes in bytes of the files that were made."""
    files = [studio.find_run(given["run"]) / name for name in MADE_FILES]
    return {file.name: file.stat().st_size for file in files if file.exists()}


ACTIONS: dict[str, Action] = {
    "state": get_state,
    "net": get_net,
    "times": time_net,
    "inspect": inspect_data,
    "preview": preview_data,
    "train": train,
    "resume": resume,
    "stop": stop,
    "branch": branch,
    "run": get_run,
    "runs": get_runs,
    "checkpoints": get_checkpoints,
    "report": compute("results.show_report"),
    "cell": compute(
        "results.show_cell", lambda given: [int(given[name]) for name in ("problem", "truth", "predicted")]
    ),
    "units": compute("results.show_units", lambda given: [str(given["layer"])]),
    "look": compute("results.look_at", read_image),
    "explain": compute("results.explain", read_image),
    "similar": compute("results.find_similar", read_image),
    "compare": compare,
    "repeat": compute("reproduction.describe_reproduction"),
    "make": make_file,
    "files": list_files,
    "images": draw_images,
    "correct": correct_labels,
    "save-image": save_image,
    "remove-image": remove_image,
    "set": list_set,
}
"""What the page asks for, by ``POST /api/NAME`` with JSON, or with the bytes of an image and values in the query."""


def list_assets() -> dict[str, tuple[str, str]]:
    """For each path in the URL, a file of the page and its type: the only files that the server reads by request."""
    names = sorted(file.name for file in files(__package__).joinpath("page").iterdir())
    served = {name: (name, TYPES[name.rpartition(".")[2]]) for name in names if name.rpartition(".")[2] in TYPES}
    return {"/": served["index.html"]} | {f"/{name}": asset for name, asset in served.items()}


def build_studio(studio: Studio) -> Starlette:
    held, held_images = Held(REQUEST_BYTES), Held(IMAGE_BYTES)

    def serve(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        content = files(__package__).joinpath("page", name).read_bytes()

        async def respond(_: Request) -> Response:
            return Response(content, media_type=media_type)

        return respond

    async def stream(request: Request) -> Response:
        mark = request.headers.get("last-event-id") or request.query_params.get("after") or studio.log.mark(0)
        return StreamingResponse(studio.log.stream(mark), media_type="text/event-stream")

    async def send_file(request: Request) -> Response:
        name = request.query_params.get("file")
        try:
            file = studio.find_run(request.query_params.get("run")) / str(name)
        except RunError as error:
            return refuse(404, str(error))
        if name not in MADE_FILES or not file.is_file() or file.is_symlink():
            return refuse(404, f"{file.parent.name} has no file {str(name)[:100]!r} to download. Make it first.")
        return FileResponse(file, media_type=IMAGE_TYPE, filename=f"{file.parent.name}-{name}")

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ACTIONS:
            raise HTTPException(404, f"The studio has no {name[:100]!r}.")
        is_image = request.headers.get("content-type") == IMAGE_TYPE
        async with (held_images if is_image else held).read_body(request) as body:
            try:
                given = {**request.query_params, "image": bytes(body)} if is_image else json.loads(body or b"{}")
            except (ValueError, RecursionError):
                raise HTTPException(400, "The request is not JSON.") from None
        try:
            return AsciiJson(await ACTIONS[name](studio, given))
        except LaminaError as error:
            return refuse(422, str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return refuse(400, f"The request lacks a value or has a wrong one: {error}.")

    return Starlette(
        routes=[
            *(Route(path, serve(*asset)) for path, asset in list_assets().items()),
            Route("/api/events", stream),
            Route("/api/file", send_file),
            Route("/api/{name}", act, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _handle_error},
    )


async def _handle_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return refuse(error.status_code, error.detail, error.headers)
