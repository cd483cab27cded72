"""lamina serve: serve models over HTTP, with a web page to try them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lamina.cli.options import Serve
from lamina.cli.terminal import Terminal
from lamina.errors import DataError, escape


def run(options: Serve, terminal: Terminal) -> int:
    if not options.runs:
        raise DataError("No runs given. Add their paths, as in lamina serve runs/pets.")
    check_installed("serve")
    from lamina.deploy.serve.app import serve  # not earlier: it needs starlette
    from lamina.deploy.serve.predicting import PredictingProcess
    from lamina.deploy.serve.worker import Worker
    from lamina.deploy.web.access import TOKEN_VARIABLE, is_loopback
    from lamina.deploy.web.server import Address

    token = read_token(options.token)
    if token is None and not is_loopback(options.host):
        raise DataError(
            f"--host is {options.host}, which other machines can reach, but there is no token. "
            f"Set {TOKEN_VARIABLE} to a secret, or use --token."
        )
    runs = name_runs(options.runs)
    worker = Worker(PredictingProcess(runs, options.device), terminal.remark)
    address = Address(options.host, options.port, token)

    def announce(url: str) -> None:
        terminal.say(f"serving {', '.join(runs)} at {url}; press Ctrl-C to stop")
        terminal.emit("serving", url=url)

    async def serve_until_ended() -> None:
        task = asyncio.current_task()
        if task is not None and os.name != "nt":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(worker, address, options.max_mb * 10**6, announce)

    try:
        asyncio.run(serve_until_ended())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0


def check_installed(command: str) -> None:
    """Raise ``DataError`` unless the packages of a server are installed."""
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise DataError(
                f"lamina {command} requires {name}, which is not installed. Run pip install"
                " 'lamina[serve]'"
            )


def read_token(option: str | None) -> str | None:
    """The token that requests must send, if there is one; ``DataError`` if it cannot be sent."""
    from lamina.deploy.web.access import TOKEN_VARIABLE

    token = option or os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (
        token.isascii() and token.isprintable() and token == token.strip()
    ):
        raise DataError(
            "The token cannot be sent in an HTTP header; it must be printable ASCII without spaces"
            " at its ends. Choose another token."
        )
    return token


def name_runs(paths: Sequence[Path]) -> dict[str, str]:
    """Map names for requests to folders: the folder's name, or its path if ambiguous."""
    different = list(dict.fromkeys(paths))
    names = [escape(path.resolve().name) for path in different]
    runs = {}
    for path, name in zip(different, names, strict=True):
        key = name if names.count(name) == 1 else escape(str(path))
        runs[key] = str(path)
    return runs
