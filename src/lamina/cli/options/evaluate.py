"""The options of lamina evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from lamina.cli.options import Device, Json, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
    """Evaluate a run's model on the images it was not trained on, or on another data set.

    Where some of them are near-duplicates of training images, the score without these is given too.
    """

    run: RunFolder
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """a name or a path, all of it evaluated unless it has splits of its own; by default the run's own data set"""
    split: Literal["train", "val", "test"] | None = None
    """which images; by default test, or val if there is no test"""
    tta: bool = False
    """test-time augmentation: for images the model is unsure about, average over mirrored and shifted views, as in
    training"""
    near_duplicates: bool | None = None
    """look for near-duplicates of training images; by default where that takes at most 5 seconds, in the run's data"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False
