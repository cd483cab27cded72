"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from lamina.values import Range

RunFolder = Annotated[
    Positional[Path], arg(metavar="RUN", help="path of a run, or its name in runs/")
]
Images = Annotated[
    Positional[tuple[Path, ...]],
    arg(
        metavar="IMAGE...",
        help=(
            "image files, folders, archives, tables, or quoted patterns such as 'photos/**/*.jpg';"
            " - reads a list"
        ),
        help_behavior_hint="",
    ),
]
DATA = "a folder, archive, table or array file, or the name of a built-in data set"
Source = Annotated[Positional[str], arg(metavar="DATA", help=DATA)]
OptionalSource = Annotated[
    Positional[str | None], arg(metavar="DATA", help=DATA, help_behavior_hint="")
]
TrainingData = Annotated[
    str | None,
    arg(
        metavar="DATA",
        help=f"{DATA} (default: CIFAR-10, downloaded if necessary; shapes if that fails)",
    ),
]
MovedData = Annotated[
    str | None,
    arg(
        metavar="DATA",
        help="current path of the run's data set (default: its path during training)",
    ),
]
OwnModule = Annotated[
    str | None,
    arg(
        metavar="FILE",
        help=(
            "file.py[:NAME] that defines the run's net, if you wrote it as a torch module or with"
            " custom layers; lamina executes the file"
        ),
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], arg(help="device to compute on")]
RunsFolder = Annotated[Path, arg(metavar="FOLDER", help="folder that contains the runs")]
Jobs = Annotated[
    int | None,
    arg(
        metavar="N",
        help=(
            "number of runs to train at once, each in a process; does not change results (default:"
            " as many as cores and memory allow; 1 with a GPU, with --time except in tune, and"
            " on macOS and Windows)"
        ),
    ),
    Range(1),
]
Flag = FlagCreatePairsOff[bool]
"""A switch that is off by default; unlike ``bool``, it has no ``--no-`` form."""
Top = Annotated[
    int,
    arg(metavar="N", help="number of rows to print from each list; --json prints all"),
    Range(1),
]
Json = Annotated[
    Flag,
    arg(help="print one JSON object per line on stdout, including errors; other output on stderr"),
]
Progress = Annotated[
    Flag,
    arg(
        help=(
            "with --json: also print remarks, steps and progress; the first Ctrl-C then finishes a"
            " single run of one process early, and evaluates it"
        )
    ),
]
SaveEvery = Annotated[
    str,
    arg(
        metavar="TIME",
        help=(
            "time between checkpoints within an epoch (30s, 5m, 1h); lamina also saves after each"
            " epoch, unless checkpoints would take more than 2 % of the time"
        ),
    ),
]
Port = Annotated[
    int,
    arg(metavar="N", help="port to listen on; 0 chooses a free port"),
    Range(0, 2**16 - 1),
]
