"""The studio as a person starts it, in a process of its own on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

from support import forking
from support.commands import train_once
from support.servers import PATIENCE_SECONDS, Server, encode, find_chromium, open_page, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FilePayload, Page

NAME_LENGTH = 15  # of a process in Linux
SMALL = "Conv2d(4, 3, stride=4), BatchNorm(), ReLU(), Flatten(), Output()"
BATCH_SIZE = 72  # of the 720 images for training: ten steps an epoch
LASTING = 5000
"""Epochs of a training that a test stops."""
EMPTIED = """
from lamina.deploy.studio.events import Events
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.actions import ACTIONS

async def forget(studio):
    await studio.jobs.close()
    studio.jobs.events.close()
    vars(studio.jobs).update(vars(Jobs(studio.jobs.runs_dir, Events())))
    return {}

ACTIONS["forget"] = forget
"""
"""A studio that can stop all jobs, and forget them and its events."""
EPOCH = re.compile(r"epoch \d+/\d+")
DONE = re.compile(r"done: right on [\d,]+ of [\d,]+ new images")


@dataclass(frozen=True)
class Studio(Server):
    """A studio, its folder, and what a page would ask of it."""

    folder: Path

    def act(self, action: str, /, **values: Any) -> Any:
        """The response of an action; its error as text if it is refused."""
        reply = self.ask(f"/api/{action}", json.dumps(values).encode())
        return reply.values if reply.status == 200 else reply.values["error"]

    def empty(self) -> None:
        """Stop and forget all jobs; remove runs and data."""
        assert self.act("forget") == {}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def train(self, name: str, epochs: int = LASTING, **settings: str) -> Any:
        """Train the small net on the shapes."""
        fields = {"epochs": str(epochs), "batch_size": str(BATCH_SIZE), **settings}
        values = {"net": SMALL, "source": "shapes", "val": "0.1", "fields": fields, "name": name}
        return self.act("train", **values)

    def list_epochs(self, run: str) -> list[str]:
        """The lines of a run's history."""
        history = self.folder / "runs" / run / "history.jsonl"
        return history.read_text().splitlines() if history.exists() else []

    def copy_runs(self, path: Path, *names: str) -> None:
        """Copy a finished run into the folder of runs, under each of the names."""
        for name in names:
            shutil.copytree(path, self.folder / "runs" / name)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Iterator[dict[str, Any]]]:
        """The events that the studio sends during the block."""
        with self.connect() as connection:
            head = f"GET /api/events HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n\r\n"
            connection.sendall(head.encode())
            lines = connection.makefile("rb")
            next(line for line in lines if line.startswith(b": open"))
            yield (json.loads(line[6:]) for line in lines if line.startswith(b"data: "))

    def find_child(self, word: str) -> int:
        """The process of a job, by the first word of its command line."""
        for child in self.find_children(word):
            return child
        raise LookupError(word)

    def find_children(self, word: str) -> list[int]:
        """All such processes, in order of their start."""
        number = self.process.pid
        found = []
        for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                if Path(f"/proc/{child}/comm").read_text().rstrip() == word[:NAME_LENGTH]:
                    found.append(int(child))
        return found


@contextlib.contextmanager
def opening(
    folder: Path,
    *arguments: str,
    first: str = "",
    draws_all_shapes: bool = False,
    **environment: str,
) -> Iterator[Studio]:
    """A studio in ``folder`` that is ready; its process runs the Python ``first``.

    It asks for no token, unless the arguments have ``--token`` or ``--own-token``, the default.
    """
    code = f"import sys\n{first}\nfrom lamina.cli import main\nsys.exit(main(sys.argv[1:]))"
    access = () if "--token" in arguments or "--own-token" in arguments else ("--no-token",)
    arguments = tuple(word for word in arguments if word != "--own-token")
    words = ("studio", "--port", "0", "--no-browser", "--json", *access, *arguments)
    with forking.start(
        *words,
        code=code,
        cwd=folder,
        environment={**os.environ, **environment},
        forks_python=True,
        draws_all_shapes=draws_all_shapes,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            event = json.loads(process.stdout.readline())
            assert event["event"] == "studio"
            yield Studio(process, "127.0.0.1", urlsplit(event["url"]).port, event["url"], folder)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_SECONDS)


def wait_for_end(studio: Studio, number: int) -> dict[str, Any]:
    """A job once it has ended."""

    def find() -> dict[str, Any] | None:
        (job,) = (one for one in studio.act("state")["jobs"] if one["number"] == number)
        return job if job["state"] in ("done", "stopped", "failed") else None

    return wait_for(find)


def wait_for_epochs(studio: Studio, run: str, epochs: int = 1) -> None:
    wait_for(lambda: len(studio.list_epochs(run)) >= epochs)


def wait_for_score(studio: Studio, run: str) -> dict[str, Any]:
    """A run of the list once it has been evaluated."""

    def find() -> dict[str, Any] | None:
        runs = studio.act("runs")
        return next((one for one in runs if one["name"] == run and one["score"]), None)

    return wait_for(find)


def train_quickly(epochs: int = 2, lr: float = 0.001) -> Path:
    """A finished run of the small net on the shapes, as the page would train it; made once."""
    options = ("--val", "0.1", "--epochs", str(epochs), "--batch-size", str(BATCH_SIZE))
    return train_once(SMALL, "shapes", *options, "--lr", str(lr))


def train_in_page(page: Page, epochs: int = LASTING, name: str = "") -> None:
    """Fill in the recipe, and press Train."""
    page.locator("#field-epochs").fill(str(epochs))
    page.locator("#field-batch_size").fill(str(BATCH_SIZE))
    if name:
        page.locator("#recipe details summary").click()
        page.get_by_label("Name of the run").fill(name)
        page.locator("#recipe details summary").click()
    page.get_by_role("button", name="Train", exact=True).click()


def draw(kind: str, number: int) -> FilePayload:
    """An image of a class, ``round`` or another one, as a file that is dropped or chosen."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (48, 48), tuple(rng.integers(150, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    x, y = rng.integers(2, 22, 2).tolist()
    color = tuple(rng.integers(0, 120, 3).tolist())
    (pen.ellipse if kind == "round" else pen.rectangle)((x, y, x + 22, y + 22), color)
    return {"name": f"{number}.png", "mimeType": "image/png", "buffer": encode(np.asarray(image))}


def write_classes(folder: Path, count: int, other: str = "square", swapped: int = 0) -> None:
    """Write images of two classes by turns, the first few of them into the wrong folder."""
    for number in range(count):
        kinds = ("round", other) if number % 2 else (other, "round")
        image = draw(kinds[0], number)
        label = kinds[number < swapped]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / image["name"]).write_bytes(image["buffer"])


def use_net(page: Page, text: str = SMALL) -> None:
    """Write a net into the text area, and wait until its cards are shown."""
    python = page.locator("#python")
    # a click could miss a page that still moves
    page.locator("details", has=python).evaluate("details => { details.open = true; }")
    python.fill(text)
    layers = page.get_by_role("list", name="Layers").locator("> li")
    from playwright.sync_api import expect

    expect(layers).to_have_count(text.count("), ") + 1)


@pytest.fixture(scope="session")
def open_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all tests of a worker."""
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    with opening(tmp_path_factory.mktemp("studio"), first=EMPTIED) as opened:
        yield opened


@pytest.fixture
def studio(open_studio: Studio) -> Studio:
    """The studio of this worker, without what earlier tests have left.

    A test that ends the studio, or needs one with other options, uses :func:`opening`.
    """
    open_studio.empty()
    return open_studio


@contextlib.contextmanager
def showing(browser: Browser, studio: Studio, **kept: str) -> Iterator[Page]:
    """The page of a studio, once it lists the data sets; its tab has kept some of its state."""
    from playwright.sync_api import expect

    first = f"sessionStorage.setItem('page', {json.dumps(json.dumps(kept))})" if kept else ""
    with open_page(browser, studio.url, first) as opened:
        expect(opened.locator("#source option").first).to_be_attached()
        yield opened


@contextlib.contextmanager
def launching_with_webcam(browser: Browser) -> Iterator[Browser]:
    """Another Chromium, whose webcam shows a test pattern."""
    launched = browser.browser_type.launch(
        executable_path=find_chromium(),
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ],
    )
    with contextlib.closing(launched):
        yield launched


@pytest.fixture
def studio_page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """The page of the studio with ``shapes``, once everything is loaded."""
    from playwright.sync_api import expect

    with showing(browser, studio) as opened:
        expect(opened.get_by_role("combobox", name="Data")).to_have_value("shapes")
        expect(opened.locator("#data-view")).to_contain_text("720 to learn from, 80 to check")
        expect(opened.get_by_role("button", name="Train", exact=True)).to_be_enabled()
        yield opened
