"""The options of lamina runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lamina.cli.options import Json, RunsFolder


@dataclass(frozen=True)
class Options:
    """List the runs in a folder, oldest first, or show how two of them differ."""

    diff: Annotated[tuple[Path, Path] | None, arg(metavar="A B")] = None
    """two runs, by path or by name in --runs-dir: what differs in recipe, net, data, versions, processor, threads,
    precision and results"""
    runs_dir: RunsFolder = Path("runs")
    json: Json = False
