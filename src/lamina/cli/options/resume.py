"""The options of lamina resume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from lamina.cli.options import ON_NAN, Json, MovedData, OnDiagnosis, OwnModule, RunFolder, SaveEvery


@dataclass(frozen=True)
class Options:
    """Resume a run where it was last saved; its weights become bit-identical to those of an uninterrupted run."""

    run: RunFolder
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """new total number of epochs; needs a constant schedule without warmup"""
    save_every: SaveEvery = "60s"
    on_nan: Annotated[Literal["stop", "rewind"] | None, arg(help=f"{ON_NAN}; by default as before")] = None
    on_diagnosis: OnDiagnosis = "continue"
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
