"""The studio as a person starts it, in a process of its own on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.servers import PATIENCE_SECONDS, Server, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SMALL = "Conv2d(4, 3, stride=4), BatchNorm(), ReLU(), Flatten(), Output()"


@dataclass(frozen=True)
class Studio(Server):
    """A studio, its folder, and what a page would ask of it."""

    folder: Path

    def act(self, action: str, /, **values: Any) -> Any:
        """The response of an action; its error as text if it is refused."""
        reply = self.ask(f"/api/{action}", json.dumps(values).encode())
        return reply.values if reply.status == 200 else reply.values["error"]

    def ask_stream(self, after: str, most: int) -> list[tuple[str, dict[str, Any]]]:
        """Up to ``most`` events after a mark, with their marks; then the connection is lost."""
        found: list[tuple[str, dict[str, Any]]] = []
        with self.connect() as connection:
            head = f"GET /api/events HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            head += f"Last-Event-ID: {after}\r\n\r\n" if after else "\r\n"
            connection.sendall(head.encode())
            mark = ""
            for line in connection.makefile("rb"):
                if line.startswith(b"id: "):
                    mark = line[4:].decode().strip()
                elif line.startswith(b"data: "):
                    found.append((mark, json.loads(line[6:])))
                    if len(found) == most:
                        break
        return found

    def find_child(self, word: str) -> int:
        """The process of a job, by a word of its command line."""
        number = self.process.pid
        for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                if word in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                    return int(child)
        raise LookupError(word)


@contextlib.contextmanager
def opening(folder: Path, *arguments: str, first: str = "", **environment: str) -> Iterator[Studio]:
    """A studio in ``folder`` that is ready; its process runs the Python ``first``."""
    start = f"import sys\n{first}\nfrom lamina.cli import main\nsys.exit(main(sys.argv[1:]))"
    program = ["-c", start] if first else ["-m", "lamina"]
    words = [
        sys.executable,
        *program,
        "studio",
        "--port",
        "0",
        "--no-browser",
        "--json",
        *arguments,
    ]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**inherited, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            event = json.loads(process.stdout.readline())
            assert event["event"] == "studio"
            port = int(event["url"].rstrip("/").rpartition(":")[2])
            yield Studio(process, "127.0.0.1", port, event["url"], folder)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def wait_for_end(studio: Studio, number: int) -> dict[str, Any]:
    """A job once it has ended."""

    def find() -> dict[str, Any] | None:
        (job,) = (one for one in studio.act("state")["jobs"] if one["number"] == number)
        return job if job["state"] in ("done", "stopped", "failed") else None

    return wait_for(find)


def wait_for_epochs(studio: Studio, run: str, epochs: int = 1) -> None:
    file = studio.folder / "runs" / run / "history.jsonl"
    wait_for(lambda: file.exists() and len(file.read_text().splitlines()) >= epochs)


def wait_for(find: Callable[[], Any]) -> Any:
    """What ``find`` returns once it is true."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        assert time.monotonic() < until
        time.sleep(0.05)  # the other processes need the processor
    return found


def use_net(page: Page, text: str = SMALL) -> None:
    """Write a net into the text area, and wait until its cards are shown."""
    page.get_by_role("textbox", name="Python", exact=True).fill(text)
    layers = page.get_by_role("list", name="Layers").locator("> li")
    from playwright.sync_api import expect

    expect(layers).to_have_count(text.count("), ") + 1)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    with opening(tmp_path) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """The page with ``shapes``, once everything is loaded."""
    with open_page(browser, studio.url) as opened:
        # Other tests may keep all cores busy.
        opened.set_default_timeout(120_000)
        from playwright.sync_api import expect

        expect.set_options(timeout=120_000)
        opened.get_by_role("combobox", name="Data").select_option("shapes")
        expect(opened.locator("#data-view")).to_contain_text("7,200 train, 800 val, 2,000 test")
        yield opened
