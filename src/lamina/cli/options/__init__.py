"""The options of each group of commands, in a file that loads quickly; here those that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="the run's folder, or its name in runs/")]
Images = Annotated[
    Positional[tuple[Path, ...]],
    arg(
        metavar="IMAGE...",
        help="images, folders of images, and quoted patterns such as 'photos/**/*.jpg'",
        help_behavior_hint="",
    ),
]
Data = Annotated[
    str | None,
    arg(metavar="DATA", help="a name or a path; by default CIFAR-10 where it is available, else the built-in shapes"),
]
MovedData = Annotated[str | None, arg(metavar="DATA", help="where the run's data set is now; by default where it was")]
OwnModule = Annotated[
    str | None,
    arg(metavar="FILE", help="file.py[:NAME] that makes your own module; a run stores only its weights"),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], arg(help="where to compute")]
RunsFolder = Annotated[Path, arg(metavar="FOLDER", help="folder of the runs")]
Flag = FlagCreatePairsOff[bool]
"""Asks for something; unlike a bool, which turns something on or off, it needs no ``--no-``."""
Json = Annotated[Flag, arg(help="print JSON objects, one per line, on stdout, and everything else on stderr")]
SaveEvery = Annotated[
    str,
    arg(
        metavar="TIME",
        help="time between checkpoints within an epoch (30s, 5m, 1h); each epoch ends with one, unless saving takes "
        "too long",
    ),
]
ON_NAN = (
    "what to do if a loss or gradient is NaN or infinite: stop, or return to the last checkpoint with half the lr, at "
    "most 3 times"
)
OnNan = Annotated[Literal["stop", "rewind"], arg(help=ON_NAN)]
OnDiagnosis = Annotated[
    Literal["continue", "stop"],
    arg(
        help="what to do if the training goes wrong, such as with dead units: print the evidence and what to try and "
        "continue, or stop"
    ),
]
