"""The options of the commands that evaluate: evaluate, runs, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Flag, Json, MovedData, OwnModule, RunFolder, RunsFolder


@dataclass(frozen=True)
class EvaluateOptions:
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


@dataclass(frozen=True)
class RunsOptions:
    """List the runs in a folder, oldest first, or show how two of them differ."""

    diff: Annotated[tuple[Path, Path] | None, arg(metavar="A B")] = None
    """two runs, by path or by name in --runs-dir: what differs in recipe, net, data, versions, processor, threads,
    precision and results"""
    runs_dir: RunsFolder = Path("runs")
    json: Json = False


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page about a run: scores, images, findings, and how to reproduce it."""

    run: RunFolder
    file: Annotated[Positional[Path | None], arg(metavar="[OUT]")] = None
    """file to write; by default report.html in the run's folder, or README.md with --card"""
    card: Flag = False
    """write a model card in Markdown instead, with the metadata of Hugging Face; an existing file is kept"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
