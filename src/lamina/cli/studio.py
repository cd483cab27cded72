"""lamina studio: build, train, look inside and compare in the browser."""

from __future__ import annotations

import asyncio
import html
import os
import secrets
import signal
import tempfile
import threading
import webbrowser
from pathlib import Path
from urllib.parse import quote

from lamina.cli.options import Studio
from lamina.cli.parsing import refuse
from lamina.cli.serve import check_installed, read_token
from lamina.cli.terminal import Terminal
from lamina.errors import DataError

TOKEN_BYTES = 24  # of a random token


def run(options: Studio, terminal: Terminal) -> int:
    if not options.data.is_dir():
        raise DataError(
            f"--data is {options.data}, which is not a folder. Use the folder that contains your"
            " data sets."
        )
    check_installed("studio")
    from lamina.deploy.studio.data_folder import DataFolder
    from lamina.deploy.studio.routes import open_studio  # not earlier: it needs starlette
    from lamina.deploy.web.server import Address

    token = choose_token(options)
    data = DataFolder(options.data.resolve(), options.runs_dir)

    def announce(address: str) -> None:
        url = address if token is None else f"{address}#token={quote(token)}"
        terminal.say(f"lamina studio: {url}; press Ctrl-C to stop")
        terminal.remark(f"data: {data.path}; runs: {data.runs_dir.resolve()}")
        terminal.emit("studio", url=url)
        if options.browser:
            # A browser of the terminal waits for the page, which the studio must be able to send.
            opened = write_redirect(url, Path(private))
            threading.Thread(target=webbrowser.open, args=(opened,), daemon=True).start()

    received: list[int] = []

    async def open_until_ended() -> list[str]:
        task = asyncio.current_task()

        def end(number: int) -> None:
            if task is not None and not received:  # a second signal must not interrupt the saving
                task.cancel()
            received.append(number)
            terminal.remark("lamina: stopping")

        if os.name != "nt":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, end, number)
        address = Address(options.host, options.port, token)
        return await open_studio(data, address, announce)

    with tempfile.TemporaryDirectory(prefix="lamina-") as private:  # which only this user can read
        ends = asyncio.run(open_until_ended())
    for end in ends:
        terminal.remark(f"lamina: {end}")
    return 128 + received[0] if received else 0


def write_redirect(url: str, folder: Path) -> str:
    """The address of a file that redirects to ``url``: others can see a browser's arguments."""
    file = folder / "studio.html"
    file.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">\n', "utf-8")
    return file.as_uri()


def choose_token(options: Studio) -> str | None:
    """The token of the options or the environment, or a random token."""
    if not options.no_token:
        return read_token(options.token) or secrets.token_urlsafe(TOKEN_BYTES)
    from lamina.deploy.web.access import is_loopback

    refuse(options, "--no-token lets everybody in.", "token")
    if not is_loopback(options.host):
        raise DataError(
            f"--host is {options.host}, which other machines can reach. Leave out --no-token."
        )
    return None
