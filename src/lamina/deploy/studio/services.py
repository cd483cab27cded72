"""Shared by all actions of the studio: folders, commands, and processes for torch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.web.torch_process import Call, LostError, TorchProcess
from lamina.errors import LaminaError, RunError, suggest
from lamina.files import check_name
from lamina.values import Range

PACKAGE = "lamina.deploy.studio"
Side: TypeAlias = Annotated[int, Range(1, 4096)]  # of images in pixels
Action: TypeAlias = Callable[..., Awaitable[Any]]
Actions: TypeAlias = dict[str, Action]
Image: TypeAlias = bytes | tuple[str, int]  # a file, or the split and row of an image of a run
DEFAULTS = {"image": ("", 0)}
OPENING = Call(f"{PACKAGE}.data_views.prepare")


@dataclass(frozen=True, eq=False)
class Studio:
    """The studio; ``quick`` and ``slow`` compute, so that quick results never wait for slow ones.

    A call replaces a waiting call of a request with the same ``replaces``.
    """

    data: DataFolder
    jobs: Jobs
    quick: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))
    slow: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))
    replaces: str = ""

    async def compute_quickly(self, function: str, *arguments: Any) -> Any:
        """The result of a function of this package, such as ``run_views.list_runs``."""
        return await self._compute(self.quick, function, arguments)

    async def compute(self, function: str, *arguments: Any) -> Any:
        """As :meth:`compute_quickly`, for functions that may take long."""
        return await self._compute(self.slow, function, arguments)

    async def close(self) -> None:
        await self.quick.close()
        await self.slow.close()
        self.jobs.log.close()

    def find_run(self, name: str) -> Path:
        """The folder of a run by its name, such as ``first`` or ``study/fold-1``."""
        runs_dir = self.data.runs_dir
        parts = name.split("/")
        job = self.jobs.find_active(name)
        are_names = all(part and not part.startswith(".") for part in parts)
        is_below = len(parts) < 3 and are_names and "\\" not in name
        # Path.is_file raises for names that are too long
        if is_below and os.path.isfile(runs_dir / name / "run.json"):  # noqa: PTH113
            return runs_dir / name
        if job is not None:
            raise RunError(f"{name} is being prepared. Its results appear after its first epoch.")
        known = sorted(file.parent.name for file in runs_dir.glob("*/run.json"))
        remedy = suggest(name[:100], known) if known else "Train one."
        raise RunError(f"There is no run {name[:100]!r} in {runs_dir}. {remedy}")

    def find_movable(self, name: str) -> Path:
        """The folder of a run that may be renamed or deleted now; ``RunError`` otherwise."""
        path = self.find_run(name)
        if "/" in name:
            raise RunError(f"{name} is part of a study, which finds its runs by their names.")
        for job in self.jobs.jobs:
            is_used = job.run == name or any(str(path) in word for word in job.words)
            if job.is_active and is_used:
                raise RunError(f"{name} is in use. Pause its training, or wait until it has ended.")
        return path

    def choose_name(self, wish: str, beginning: str) -> str:
        """Reserve a name for a new run: ``wish``, or ``beginning`` and a number that is new."""
        # unlike names of lamina train, it does not begin with a date, so that names never clash
        if not wish:
            numbers = itertools.count(self.jobs.find_number(beginning))
            names = (f"{beginning}-{number}" for number in numbers)
            return next(name for name in names if self._reserve(name))
        check_name(wish)
        if not self._reserve(wish):
            raise RunError(
                f"There is already a run {wish}, or a studio will train it. Use another name, or"
                " select the run to continue it."
            )
        return wish

    def _reserve(self, name: str) -> bool:
        is_taken = self.jobs.find_active(name) is not None or (self.data.runs_dir / name).exists()
        return not is_taken and self.jobs.reserve(name)

    async def _compute(
        self, process: TorchProcess, function: str, arguments: tuple[Any, ...]
    ) -> Any:
        if not function.startswith("lamina."):
            function = f"{PACKAGE}.{function}"
        try:
            return await process.call(Call(function, arguments), self.replaces or None)
        except LostError as error:
            raise LaminaError(
                f"The process that computes this {error}. It starts again. Try smaller images, or"
                " make the report under Export, which takes as long as it needs."
            ) from None


def answer(
    function: str, find: Callable[..., Path], kinds: dict[str, Any], *, is_quick: bool
) -> Action:
    """An action that calls a function with a folder and with values of these kinds."""

    async def act(studio: Studio, **values: Any) -> Any:
        folder = find(studio, values)
        compute = studio.compute_quickly if is_quick else studio.compute
        return await compute(function, folder, *values.values())

    parameters = [Parameter("studio", Parameter.POSITIONAL_ONLY)]
    for name, kind in kinds.items():
        default = DEFAULTS.get(name, Parameter.empty)
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default))
    vars(act)["__signature__"] = Signature(parameters)
    return act


def on_run(function: str, *, is_quick: bool = False, **kinds: Any) -> Action:
    """An action that calls a function with the folder of a run."""

    def find(studio: Studio, values: dict[str, Any]) -> Path:
        return studio.find_run(values.pop("run"))

    return answer(function, find, {"run": str, **kinds}, is_quick=is_quick)
