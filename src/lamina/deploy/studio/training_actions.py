"""What the page asks for to build and train nets: a class for each action."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

from lamina import zoo
from lamina.deploy.studio.data_actions import Source
from lamina.deploy.studio.net_cards import list_layers, list_presets, show_net, split_text
from lamina.deploy.studio.recipe_fields import (
    check_fields,
    list_fields,
    read_seconds,
    write_options,
)
from lamina.deploy.studio.studio import Studio
from lamina.errors import LaminaError, RunError
from lamina.metrics import METRICS
from lamina.values import Range

Dimension = Annotated[int, Range(1, 2**31)]


@dataclass(frozen=True)
class GetState:
    """Everything that the page needs to start, or to start again."""

    async def act(self, studio: Studio) -> dict[str, Any]:
        jobs = studio.jobs
        after = jobs.log.mark(jobs.log.last)  # before the runs, which take a while to list
        runs = await studio.compute_quickly("run_views.list_runs", studio.data.runs_dir)
        return {
            "data": await asyncio.to_thread(studio.data.list_sources),
            "presets": list_presets(),
            "layers": list_layers(),
            "fields": list_fields(),
            "fractions": [name for name, metric in METRICS.items() if metric.is_fraction],
            "jobs": [job.to_json() for job in jobs.jobs],
            "runs": runs,
            "after": after,
        }


@dataclass(frozen=True)
class ShowNet:
    """The cards of a net, from its Python or from edited cards."""

    text: str | None = None
    cards: tuple[str, ...] = ()
    shape: tuple[Dimension, ...] | None = None
    outputs: Dimension | None = None

    async def act(self, _: Studio) -> dict[str, Any]:
        try:
            layers = list(self.cards) if self.text is None else split_text(self.text)
        except LaminaError as error:
            return {"cards": None, "problem": str(error)}
        return await asyncio.to_thread(show_net, layers, self.shape, self.outputs)


@dataclass(frozen=True)
class TimeNet:
    """How long each layer takes."""

    text: str
    shape: tuple[Dimension, ...]
    outputs: Dimension
    replaces: str = ""

    async def act(self, studio: Studio) -> Any:
        if any(job.is_active and job.is_training for job in studio.jobs.jobs):
            raise RunError("The layers are not timed while a net trains.")
        arguments = (self.text, self.shape, self.outputs)
        return await studio.compute("data_views.time_layers", *arguments, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class Train(Source):
    """Start ``lamina train`` with what the page shows; without a net, lamina chooses it."""

    net: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    time: str = ""
    name: str = ""

    async def act(self, studio: Studio) -> dict[str, Any]:
        net = self.net
        beginning = net or "chosen"
        if net and net not in zoo.NAMES:
            net = ", ".join(split_text(net))  # no option, and no file that lamina would execute
            beginning = "net"
        seconds = read_seconds(self.time) if self.time else None
        words = ["train", *([net] if net else []), f"--data={studio.data.check(self.source)}"]
        words += self.list_options(studio)
        words += [f"--recipe={self.recipe}"] if net and self.recipe else []
        words += [f"--time={self.time}"] if self.time else []
        words += write_options(check_fields(self.fields))
        run = studio.choose_name(self.name, beginning)
        words += [f"--name={run}", f"--runs-dir={studio.data.runs_dir}"]
        job = studio.jobs.start(words, run, is_training=True, seconds=seconds, chooses_net=not net)
        return job.to_json()


@dataclass(frozen=True)
class Resume:
    """Start ``lamina resume`` for a run that is not in training."""

    run: str

    async def act(self, studio: Studio) -> dict[str, Any]:
        words = ["resume", str(studio.find_run(self.run))]
        job = studio.jobs.find_active(self.run)
        return (job or studio.jobs.start(words, self.run, is_training=True)).to_json()


@dataclass(frozen=True)
class Stop:
    """Stop a command by its number, or pause the training of a run; or let it finish now."""

    run: str = ""
    number: int | None = None
    is_finishing: bool = False

    async def act(self, studio: Studio) -> dict[str, Any]:
        job = studio.jobs.find_active(self.run, self.number)
        if job is None:
            raise RunError(f"{self.run[:100] or 'This'} has already ended.")
        studio.jobs.stop(job, is_finishing=self.is_finishing)
        return job.to_json()


@dataclass(frozen=True)
class Continue:
    """Start ``lamina train --start-from RUN@EPOCH``."""

    run: str
    epoch: Annotated[float, Range(0)]
    fields: dict[str, str] = field(default_factory=dict)

    async def act(self, studio: Studio) -> dict[str, Any]:
        path = studio.find_run(self.run)
        fields = check_fields(self.fields)
        await studio.compute_quickly("run_views.check_start", path, self.epoch, fields)
        run = studio.choose_name("", f"{path.name}-from-{self.epoch:g}")
        start = f"--start-from={path.resolve()}@{self.epoch:.10g}"
        places = [f"--name={run}", f"--runs-dir={studio.data.runs_dir}"]
        words = ["train", start, *write_options(fields), *places]
        return studio.jobs.start(words, run, is_training=True).to_json()


ACTIONS = {
    "state": GetState,
    "net": ShowNet,
    "times": TimeNet,
    "train": Train,
    "resume": Resume,
    "stop": Stop,
    "continue": Continue,
}
