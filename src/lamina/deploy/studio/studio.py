"""What all actions of the studio share: its folders, its commands, and its processes for torch."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.web.torch_process import Call, LostError, TorchProcess
from lamina.errors import LaminaError, RunError, suggest
from lamina.files import check_name

PACKAGE = "lamina.deploy.studio"
OPENING = Call(f"{PACKAGE}.data_views.prepare")


@dataclass(frozen=True, eq=False)
class Studio:
    """The studio; ``quick`` and ``slow`` compute, so that what is quick waits for nothing slow."""

    data: DataFolder
    jobs: Jobs
    quick: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))
    slow: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))

    async def compute_quickly(self, function: str, *arguments: Any, replaces: str = "") -> Any:
        """The result of a function of this package, such as ``run_views.list_runs``."""
        return await _compute(self.quick, function, arguments, replaces)

    async def compute(self, function: str, *arguments: Any, replaces: str = "") -> Any:
        """As :meth:`compute_quickly`, for what may take long.

        A newer call with the same ``replaces`` takes the place of one that still waits.
        """
        return await _compute(self.slow, function, arguments, replaces)

    async def close(self) -> None:
        await self.quick.close()
        await self.slow.close()
        self.jobs.log.close()

    def find_run(self, name: str) -> Path:
        """The folder of a run by its name, such as ``first`` or ``study/fold-1``."""
        runs_dir = self.data.runs_dir
        parts = name.split("/")
        are_names = all(part and not part.startswith(".") for part in parts)
        is_below = len(parts) < 3 and are_names and "\\" not in name
        # Path.is_file raises for names that are too long
        if is_below and os.path.isfile(runs_dir / name / "run.json"):  # noqa: PTH113
            return runs_dir / name
        known = sorted(file.parent.name for file in runs_dir.glob("*/run.json"))
        remedy = suggest(name[:100], known) if known else "Train one."
        raise RunError(f"There is no run {name[:100]!r} in {runs_dir}. {remedy}")

    def choose_name(self, wish: str, beginning: str) -> str:
        """Reserve a name for a new run: ``wish``, or ``beginning`` and the first free number."""
        # unlike names of lamina train, it begins with no date, so that neither takes the other's
        if not wish:
            names = (f"{beginning}-{number}" for number in itertools.count(1))
            return next(name for name in names if self._reserve(name))
        check_name(wish)
        if self._reserve(wish):
            return wish
        if self._is_taken(wish):
            raise RunError(
                f"There is already a run {wish}. Use another name, or select the run to"
                " continue it."
            )
        mark = self.data.runs_dir / f".{wish}"
        raise RunError(
            f"{wish} is reserved for a training of another studio. Use another name; if no other"
            f" studio runs, remove {mark}."
        )

    def _reserve(self, name: str) -> bool:
        return not self._is_taken(name) and self.jobs.reserve(name)

    def _is_taken(self, name: str) -> bool:
        return self.jobs.find_active(name) is not None or (self.data.runs_dir / name).exists()


async def _compute(
    process: TorchProcess, function: str, arguments: tuple[Any, ...], replaces: str
) -> Any:
    call = Call(f"{PACKAGE}.{function}", arguments)
    try:
        return await process.call(call, replaces or None)
    except LostError as error:
        raise LaminaError(
            f"The process that computes this {error}. It starts again. Try smaller images, or use a"
            " command without a time limit, such as lamina report RUN or lamina explain RUN IMAGE."
        ) from None
