"""The actions of the page that start, stop or remove something, and those that need no torch.

Each is a function of the studio and of the values of a request. ``computing`` has the others.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from lamina import zoo
from lamina.data.sources.published import find_download_mb
from lamina.deploy.studio.arguments import Side, Texts
from lamina.deploy.studio.jobs import Job
from lamina.deploy.studio.net_cards import list_layers, list_presets, read_net, show_net, split_text
from lamina.deploy.studio.recipe_fields import (
    list_fields,
    read_form,
    read_seconds,
    write_options,
    write_preparation,
)
from lamina.deploy.studio.studio import Studio
from lamina.errors import LaminaError, RunError
from lamina.metrics import METRICS
from lamina.values import Range

Action: TypeAlias = Callable[..., Awaitable[Any]]
Dimension: TypeAlias = Annotated[int, Range(1, 2**31)]
Shape: TypeAlias = tuple[Dimension, Dimension, Dimension]
SHOWN_LETTERS = 60  # of a data set or a run, in the name of a new run
# in a run, made by these commands, and downloaded
MADE_FILES = {"report.html": "report", "model.onnx": "export"}


async def get_state(studio: Studio) -> dict[str, Any]:
    """Everything that the page needs to start, or to start again."""
    return {
        "data": await asyncio.to_thread(studio.folder.list_sources),
        "presets": list_presets(),
        "layers": list_layers(),
        "fields": list_fields(),
        "fractions": [name for name, metric in METRICS.items() if metric.is_fraction],
        "runs": await studio.compute("runs", {}),
        "jobs": [job.to_json() for job in studio.jobs.jobs],
        "documentation": find_documentation(),
    }


@cache
def find_documentation() -> str:
    """Address of the documentation, as in the package's metadata; empty if it has none."""
    with suppress(PackageNotFoundError):
        for entry in metadata("lamina").get_all("Project-URL", ()):
            name, _, address = entry.partition(", ")
            if name == "Documentation" and address.startswith("https://"):
                return str(address).rstrip("/")
    return ""


async def inspect(
    studio: Studio,
    source: str,
    size_px: Side | None = None,
    val: str = "",
    labels: bool = False,
    may_download: bool = False,
) -> dict[str, Any]:
    """Start ``lamina data``, or return the size of the download that must come first."""
    path = studio.folder.check(source)
    download_mb = find_download_mb(source)
    if download_mb and not may_download:
        return {"download_mb": download_mb}
    corrected = studio.folder.find_corrected(source)
    words = [path, *write_preparation(size_px, val)]
    job = Job(["data", *words])
    if labels:
        checked = {"source": source, "size_px": size_px, "val": val}
        job = Job(["data", "labels", *words], is_training=True, checked=checked)
    job.labels_from = corrected
    job.may_download = may_download
    # the page must be able to undo corrections
    return studio.jobs.start(job).to_json() | {"is_corrected": corrected is not None}


async def correct(studio: Studio, source: str, choices: Texts = None) -> dict[str, str]:
    """Correct labels by image; ``None`` removes all corrections."""
    return studio.folder.correct(source, choices)


async def show_net_cards(
    _: Studio,
    text: str | None = None,
    cards: tuple[str, ...] = (),
    shape: Shape | None = None,
    outputs: Dimension | None = None,
) -> dict[str, Any]:
    """The cards of a net, from its Python code or from edited cards."""
    try:
        layers = list(cards) if text is None else split_text(text)
    except LaminaError as error:
        return {"cards": None, "problem": str(error)}
    return await asyncio.to_thread(show_net, layers, shape, outputs)


async def train(
    studio: Studio,
    source: str,
    size_px: Side | None = None,
    val: str = "",
    net: str = "",
    fields: Texts = None,
    name: str = "",
) -> dict[str, Any]:
    """Start ``lamina train`` with the settings of the page; without a net, lamina chooses it.

    ``fields`` may also contain a time limit, ``time``, and the name of a ``recipe``.
    """
    path = studio.folder.check(source)
    values = {"source": source, "size_px": size_px, "val": val, "net": net, "fields": fields}
    planned: dict[str, Any] = {"problem": None}
    with suppress(LaminaError):  # training itself reports what is wrong
        planned = await studio.compute("plan", values)
    if planned["problem"]:
        raise RunError(planned["problem"])
    texts, time, recipe = read_form(fields or {})
    beginning = net if net in zoo.NAMES else "net"
    if not net:
        beginning = re.sub(r"[^\w-]+", "-", Path(path).stem).strip("-")[:SHOWN_LETTERS] or "net"
    net = read_net(net)
    words = [f"--data={path}", *write_preparation(size_px, val)]
    if net:
        words.insert(0, net)
        texts |= {"recipe": recipe} if recipe else {}
    if time:
        words.append(f"--time={time}")
    words += write_options(texts)
    seconds = read_seconds(time)
    run = studio.jobs.choose_name(name, beginning)
    words += [f"--name={run}", f"--runs-dir={studio.folder.runs_dir}"]
    job = Job(["train", *words], run, is_training=True, seconds=seconds, chooses_net=not net)
    job.labels_from = studio.folder.find_corrected(source)
    return studio.jobs.start(job).to_json()


async def resume(studio: Studio, run: str) -> dict[str, Any]:
    """Start ``lamina resume`` for a run that is not in training."""
    words = ["resume", str(studio.folder.find_run(run))]
    job = studio.jobs.find_active(run)
    if job is None:
        job = studio.jobs.start(Job(words, run, is_training=True))
    return job.to_json()


async def stop(
    studio: Studio, run: str = "", number: int | None = None, is_finishing: bool = False
) -> dict[str, Any]:
    """Stop a command by its number, pause the training of a run, or let it finish now."""
    job = studio.jobs.find_active(run, number)
    if job is None:
        raise RunError(f"{run[:100] or 'This'} has already ended.")
    studio.jobs.stop(job, is_finishing=is_finishing)
    return job.to_json()


async def make_file(studio: Studio, run: str, file: str) -> dict[str, Any]:
    """Start the command that writes a file of a run."""
    path = studio.folder.find_run(run)
    if file not in MADE_FILES:
        names = " or ".join(MADE_FILES)
        raise RunError(f"The studio cannot make {file[:100]!r}. Choose {names}.")
    words = [MADE_FILES[file], str(path), str(path / file)]
    return studio.jobs.start(Job(words, makes_file=True)).to_json()


async def list_files(studio: Studio, run: str) -> dict[str, int]:
    """The sizes in bytes of the files that were made."""
    files = [studio.folder.find_run(run) / name for name in MADE_FILES]
    return {file.name: file.stat().st_size for file in files if file.exists()}


async def delete_run(studio: Studio, run: str) -> dict[str, list[str]]:
    """Delete what lamina wrote of a run, or forget a training that failed before it wrote any.

    Returns the names of other ``files`` in its folder, which stay.
    """
    path = studio.folder.runs_dir / run
    if studio.jobs.find_active(run) or studio.jobs.uses(path):
        raise RunError(f"{run} is in use. Pause its training, or wait until it has ended.")
    files: list[str] = []
    if not studio.jobs.has_failed(run) or studio.folder.has_run(run):
        files = await asyncio.to_thread(studio.folder.delete_run, run)
    studio.jobs.forget(run)
    return {"files": files}


ACTIONS: dict[str, Action] = {
    "state": get_state,
    "inspect": inspect,
    "correct": correct,
    "net": show_net_cards,
    "train": train,
    "resume": resume,
    "stop": stop,
    "make": make_file,
    "files": list_files,
    "delete-run": delete_run,
}
