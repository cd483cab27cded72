"""The options of lamina serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Json


@dataclass(frozen=True)
class Options:
    """Serve models over HTTP, with a page to try them, until Ctrl-C.

    Only programs of this machine reach it, unless --host gives another address and --token a secret.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...", help_behavior_hint="")]
    """the runs' folders; the first serves requests that name none"""
    port: int = 8000
    """port to listen on; 0 takes any that is free"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every address of this machine, and needs a token"""
    token: Annotated[str | None, arg(metavar="TOKEN")] = None
    """secret that requests must send; by default LAMINA_TOKEN from the environment, which other users cannot see"""
    device: Device = "auto"
    json: Json = False
