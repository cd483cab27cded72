"""lamina serve: serve models over HTTP, with a web page to try them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lamina.cli.options.use_options import ServeOptions
from lamina.cli.terminal import Terminal
from lamina.deploy.serve.security import TOKEN_VARIABLE, is_loopback
from lamina.deploy.serve.server import serve
from lamina.errors import DataError, escape


def run(options: ServeOptions, terminal: Terminal) -> int:
    if not options.runs:
        raise DataError("No runs given. Add their paths, as in lamina serve runs/pets.")
    if not 0 <= options.port < 2**16:
        raise DataError(f"--port is {options.port}; it must be from 0 to {2**16 - 1}. Use --port 8000.")
    if not 1 <= options.max_mb <= 256:
        raise DataError(f"--max-mb is {options.max_mb}; it must be from 1 to 256. Use --max-mb 10.")
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise DataError(f"lamina serve requires {name}, which is not installed. Run pip install 'lamina[serve]'")
    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(options.host):
        raise DataError(
            f"--host is {options.host}, which other machines can reach, but there is no token. "
            f"Set {TOKEN_VARIABLE} to a secret, or use --token."
        )
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
        raise DataError(
            "The token cannot be sent in an HTTP header; it must be printable ASCII without spaces at its ends. "
            "Choose another."
        )

    def announce(url: str) -> None:
        terminal.say(f"serving {', '.join(names)} at {url}; press Ctrl-C to stop")
        terminal.emit("serving", url=url)

    async def serve_until_ended() -> None:
        task = asyncio.current_task()
        if task is not None and os.name != "nt":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(
            names, options.host, options.port, token, options.device, options.max_mb * 10**6, terminal.remark, announce
        )

    names = name_runs(options.runs)
    try:
        asyncio.run(serve_until_ended())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0


def name_runs(paths: Sequence[Path]) -> dict[str, str]:
    """Map the names for requests to folders: the folder's name, or its path if the name is not unique."""
    folders = {path: escape(path.resolve().name) for path in paths}
    counts = Counter(folders.values())
    return {name if counts[name] == 1 else escape(str(path)): str(path) for path, name in folders.items()}
