"""The actions of the page to build and train nets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from lamina import zoo
from lamina.deploy.studio.net_cards import list_layers, list_presets, read_net, show_net, split_text
from lamina.deploy.studio.recipe_fields import (
    list_fields,
    read_form,
    read_seconds,
    write_options,
    write_preparation,
)
from lamina.deploy.studio.services import Actions, Side, Studio
from lamina.errors import LaminaError, RunError
from lamina.metrics import METRICS
from lamina.values import Range

Dimension: TypeAlias = Annotated[int, Range(1, 2**31)]
Shape: TypeAlias = tuple[Dimension, Dimension, Dimension]
Texts: TypeAlias = dict[str, str] | None  # fields of a recipe
SHOWN_LETTERS = 60  # of a data set or a run, in the name of a new run


async def get_state(studio: Studio) -> dict[str, Any]:
    """Everything that the page needs to start, or to start again."""
    log = studio.jobs.log
    after = log.mark(log.last)  # before the runs, which take a while to list
    runs = await studio.compute_quickly("run_views.list_runs", studio.data.runs_dir)
    return {
        "data": await asyncio.to_thread(studio.data.list_sources),
        "presets": list_presets(),
        "layers": list_layers(),
        "fields": list_fields(),
        "fractions": [name for name, metric in METRICS.items() if metric.is_fraction],
        "jobs": [job.to_json() for job in studio.jobs.jobs],
        "runs": runs,
        "documentation": find_documentation(),
        "after": after,
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


async def plan(
    studio: Studio,
    source: str,
    size_px: Side | None = None,
    val: str = "",
    net: str = "",
    fields: Texts = None,
) -> Any:
    """What :func:`train` would do with these values: the recipe and the splits."""
    data = studio.data.describe(source, size_px, val)
    return await studio.compute_quickly("net_views.plan_training", data, net, fields or {})


async def draw_untrained(
    studio: Studio,
    source: str,
    text: str,
    size_px: Side | None = None,
    val: str = "",
    row: int = 0,
) -> Any:
    """The outputs of the layers for a training image before the net is trained."""
    data = studio.data.describe(source, size_px, val)
    return await studio.compute_quickly("net_views.show_untrained", data, text, row)


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
    path = studio.data.check(source)
    planned: dict[str, Any] = {"problem": None}
    with suppress(LaminaError):  # if it takes too long, training itself reports what is wrong
        planned = await plan(studio, source, size_px, val, net, fields)
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
    run = studio.choose_name(name, beginning)
    corrected = studio.data.find_corrected(source)
    more = {"seconds": read_seconds(time), "chooses_net": not net, "labels_from": corrected}
    return start_training(studio, words, run, **more)


async def resume(studio: Studio, run: str) -> dict[str, Any]:
    """Start ``lamina resume`` for a run that is not in training."""
    words = ["resume", str(studio.find_run(run))]
    job = studio.jobs.find_active(run) or studio.jobs.start(words, run, is_training=True)
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


def start_training(studio: Studio, words: Sequence[str], run: str, **more: Any) -> dict[str, Any]:
    """Start a command that trains a new run, whose name is reserved."""
    places = [f"--name={run}", f"--runs-dir={studio.data.runs_dir}"]
    return studio.jobs.start(["train", *words, *places], run, is_training=True, **more).to_json()


ACTIONS: Actions = {
    "state": get_state,
    "net": show_net_cards,
    "plan": plan,
    "forward": draw_untrained,
    "train": train,
    "resume": resume,
    "stop": stop,
}
