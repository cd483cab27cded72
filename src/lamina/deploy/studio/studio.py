"""``Studio``: its folders, commands, and processes for torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.web.torch_process import Call, LostError, TorchProcess
from lamina.errors import LaminaError

PACKAGE = "lamina.deploy.studio.computing"
OPENING = Call(f"{PACKAGE}.prepare")
SLOW = ("report", "cell", "units", "explain", "similar", "compare")


@dataclass(frozen=True, eq=False)
class Studio:
    """The studio; ``quick`` and ``slow`` compute: quick results never wait for slow ones."""

    folder: DataFolder
    jobs: Jobs
    quick: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))
    slow: TorchProcess = field(default_factory=lambda: TorchProcess(OPENING))

    async def compute(self, name: str, values: Mapping[str, Any], replaces: str = "") -> Any:
        """The result of an action of ``computing`` for the values of a request.

        It replaces a waiting request with the same ``replaces``.
        """
        process = self.slow if name in SLOW else self.quick
        call = Call(f"{PACKAGE}.compute", (self.folder, name, dict(values)))
        try:
            return await process.call(call, replaces or None)
        except LostError as error:
            raise LaminaError(
                f"The process that computes this {error}. It starts again. Try smaller images, or"
                " make the report under Export, which takes as long as it needs."
            ) from None

    async def close(self) -> None:
        await self.quick.close()
        await self.slow.close()
        self.jobs.events.close()
