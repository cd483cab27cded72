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
from lamina.errors import DataError, escape


def run(options: ServeOptions, terminal: Terminal) -> int:
    if not options.runs:
        raise DataError("No runs given. Add their paths, as in lamina serve runs/pets.")
    if not 0 <= options.port < 2**16:
        raise DataError(
            f"--port is {options.port}; it must be from 0 to {2**16 - 1}. Use --port 8000."
        )
    if not 1 <= options.max_mb <= 256:
        raise DataError(f"--max-mb is {options.max_mb}; it must be from 1 to 256. Use --max-mb 10.")
    check_installed("serve")
    from lamina.deploy.serve.serving import Settings, serve  # not earlier: it needs starlette
    from lamina.deploy.serve.worker import Worker, plan_opening

    token = read_token(options.host, options.token)
    runs = name_runs(options.runs)
    worker = Worker(plan_opening(runs, options.device, options.coverage), terminal.remark)
    settings = Settings(
        host=options.host,
        port=options.port,
        token=token,
        limit_bytes=options.max_mb * 10**6,
        coverage=options.coverage,
        has_similar=options.similar,
    )

    def announce(url: str) -> None:
        terminal.say(f"serving {', '.join(runs)} at {url}; press Ctrl-C to stop")
        terminal.emit("serving", url=url)

    async def serve_until_ended() -> None:
        task = asyncio.current_task()
        if task is not None and os.name != "nt":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(worker, settings, announce)

    try:
        asyncio.run(serve_until_ended())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0


def check_installed(command: str) -> None:
    """Raise ``DataError`` unless the packages of a server are installed."""
    for name in ("starlette", "uvicorn", "python_multipart"):
        if find_spec(name) is None:
            raise DataError(
                f"lamina {command} requires {name}, which is not installed. Run pip install"
                " 'lamina[serve]'"
            )


def read_token(host: str, option: str | None) -> str | None:
    """The token that requests must send; ``DataError`` if it is missing or cannot be sent."""
    from lamina.deploy.web.guard import TOKEN_VARIABLE, is_loopback

    token = option or os.environ.get(TOKEN_VARIABLE) or None
    if token is None:
        if not is_loopback(host):
            raise DataError(
                f"--host is {host}, which other machines can reach, but there is no token. "
                f"Set {TOKEN_VARIABLE} to a secret, or use --token."
            )
    elif not (token.isascii() and token.isprintable() and token == token.strip()):
        raise DataError(
            "The token cannot be sent in an HTTP header; it must be printable ASCII without"
            " spaces at its ends. Choose another."
        )
    return token


def name_runs(given: Sequence[Path]) -> dict[str, str]:
    """Map names for requests to folders: NAME, else the folder's name, or its path if ambiguous."""
    pairs = [_split_name(path) for path in dict.fromkeys(given)]
    folders = [escape(path.resolve().name) for _, path in pairs]
    counts = Counter(folder for (name, _), folder in zip(pairs, folders, strict=True) if not name)
    runs: dict[str, str] = {}
    for (name, path), folder in zip(pairs, folders, strict=True):
        name = name or (folder if counts[folder] == 1 else escape(str(path)))
        if name in runs:
            raise DataError(
                f"{runs[name]} and {path} have the same name, {name}; names must differ. Use"
                f" another name, as in other={path}."
            )
        runs[name] = str(path)
    return runs


def _split_name(path: Path) -> tuple[str, Path]:
    """Split NAME=RUN; the name is empty for a plain RUN, which may contain =, too."""
    name, _, run = str(path).partition("=")
    # Path.exists raises for names that are too long.
    exists = any(
        os.path.exists(one)  # noqa: PTH110
        for one in (path, Path("runs", path))
    )
    if run and not name and not exists:
        raise DataError(f"NAME is missing before = in {path}. Use a name, as in pets={run}.")
    if exists or not (name and run) or name != Path(name).name:
        return "", path
    return escape(name), Path(run)
