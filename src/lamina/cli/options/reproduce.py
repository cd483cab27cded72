"""The options of lamina reproduce."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lamina.cli.options import Data, Device, Json, RunsFolder


@dataclass(frozen=True)
class Options:
    """Train the article's two nets as the article does, and print its claims beside the measurements."""

    data: Data = None
    seeds: int = 1
    """how many times to train each net, with seeds 0, 1, 2 …"""
    device: Device = "auto"
    runs_dir: RunsFolder = Path("runs")
    json: Json = False
