"""lamina serve: an HTTP API of runs' models, and a page to try them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import DataError, escape


@dataclass(frozen=True)
class Options:
    """Serve models over HTTP, with a page to try them, until Ctrl-C.

    Only programs of this machine reach it, unless --host gives another address and --token a secret.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...", help_behavior_hint="")]
    """the runs' folders; the first answers requests that name none"""
    port: int = 8000
    """port to listen on; 0 takes any that is free"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every address of this machine, and needs a token"""
    token: Annotated[str | None, tyro.conf.arg(metavar="TOKEN", help_behavior_hint="")] = None
    """secret that requests must send; by default LAMINA_TOKEN from the environment, which other users cannot see"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    json: bool = False
    """print one JSON object with the URL on stdout when it is ready"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "serve", arguments)
    if not options.runs:
        raise DataError("Expected the folder of a run, or of several, got none. Give their paths.")
    if not 0 <= options.port < 2**16:
        raise DataError(f"--port was {options.port}, but must be from 0 to {2**16 - 1}.")
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise DataError(f"lamina serve needs {name}, which is not installed. Run pip install 'lamina[serve]'")
    from lamina.deploy.serve.security import TOKEN_VARIABLE, is_loopback
    from lamina.deploy.serve.server import serve

    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(options.host):
        raise DataError(
            f"--host was {options.host}, which others can reach, but there is no token. "
            f"Set {TOKEN_VARIABLE} to a secret, or give it with --token."
        )
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
        # No HTTP header would bring it as it is.
        raise DataError("The token must be printable ASCII, without a space at its start or end. Choose another.")
    terminal = Terminal(as_json=options.json)

    def announce(url: str) -> None:
        terminal.say(f"serving {', '.join(names)} at {url}; Ctrl-C ends it")
        terminal.emit("serving", url=url)

    async def serve_until_ended() -> None:
        task = asyncio.current_task()
        if task is not None and os.name != "nt":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(names, options.host, options.port, token, options.device, terminal.remark, announce)

    names = name_runs(options.runs)
    try:
        asyncio.run(serve_until_ended())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0


def name_runs(paths: Sequence[Path]) -> dict[str, str]:
    """The folders by the names that requests call them: their own, or where that is not unique, the paths.

    >>> name_runs([Path("runs/a"), Path("old/a"), Path("runs/b")])
    {'runs/a': 'runs/a', 'old/a': 'old/a', 'b': 'runs/b'}
    """
    folders = {path: escape(path.resolve().name) for path in paths}
    counts = Counter(folders.values())
    return {name if counts[name] == 1 else escape(str(path)): str(path) for path, name in folders.items()}
