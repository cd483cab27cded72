"""The options of lamina report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import Flag, Json, MovedData, OwnModule, RunFolder


@dataclass(frozen=True)
class Options:
    """Write one self-contained HTML page about a run: scores, images, findings, and how to reproduce it."""

    run: RunFolder
    file: Annotated[Positional[Path | None], arg(metavar="[OUT]")] = None
    """file to write; by default report.html in the run's folder, or README.md with --card"""
    card: Flag = False
    """write a model card in Markdown instead, with the metadata of Hugging Face; an existing file is kept"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
