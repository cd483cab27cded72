"""A server in its own process on a free port, and clients for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from lamina.data import Images, load_data
from lamina.evaluation.calibration import Calibration, Threshold
from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.outputs import Outputs
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.run import Run, load_run
from lamina.training.loop import Training
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe
from support import forking, images
from support.images import encode
from support.runs import DATA, NET, RECIPE, begin_run
from support.trainings import finish

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_SECONDS = 120.0
WORKER = "predicting"
"""The process that computes, by its command line, or by its name if it was forked."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MARKUP = (
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>alert(1)</script>",
    "{{7*7}}\u202egnp.exe\n\udce9",
)
"""Classes whose names a page would obey, were they more than text to it."""
ROWS = np.arange(12)


def make_bomb(side_px: int) -> bytes:
    """A PNG file that claims to have this number of rows and columns."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        length = len(content).to_bytes(4, "big")
        return length + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = 2 * side_px.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


HOSTILE_FILES = {
    "cut": encode(images.noise(60, 60), "JPEG")[:500],
    "bomb": make_bomb(20_000),
}
"""One of each kind of file that must be refused before it is decoded whole."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def values(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    process: forking.Process
    host: str
    port: int
    announced: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"

    def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> Reply:
        """A request by an ordinary client."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, given, response.read())

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE_SECONDS)

    def ask_raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def begin(self, path: str, body: bytes, **headers: str) -> http.client.HTTPConnection:
        """Send a request whose response is read later, and wait until it has arrived."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        self.wait_for_arrivals()
        return connection

    def wait_for_arrivals(self) -> None:
        """Wait until the server has read all that was sent: it reads in order of arrival."""
        assert self.ask("/").status == 200

    def find_workers(self) -> list[int]:
        """The process that predicts and, if it has started, the one for explanations."""
        number = self.process.pid
        found = []
        for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                words = Path(f"/proc/{child}/cmdline").read_bytes()
                name = Path(f"/proc/{child}/comm").read_text()
                if WORKER in words.decode() or name.rstrip() == WORKER:
                    found.append(int(child))
        return found

    def find_worker(self) -> int:
        """The process that predicts; the one for explanations has a lower priority."""
        return min(self.find_workers(), key=lambda child: os.getpriority(os.PRIO_PROCESS, child))

    @contextlib.contextmanager
    def bounded(self, growth_bytes: int = 50 * 2**20) -> Iterator[None]:
        """Fail if the memory of server and worker grows by more than ``growth_bytes``."""
        processes = [Path(f"/proc/{number}") for number in (self.process.pid, self.find_worker())]
        for process in processes:
            (process / "clear_refs").write_text("5")  # the peak is what is resident now

        def sum_peaks() -> int:
            return 1024 * sum(
                int((process / "status").read_text().split("VmHWM:")[1].split()[0])
                for process in processes
            )

        before = sum_peaks()
        yield
        assert sum_peaks() - before < growth_bytes


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_for(find: Callable[[], Any]) -> Any:
    """What ``find`` returns once it is true."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        assert time.monotonic() < until
        time.sleep(0.05)  # the other processes need the processor
    return found


def fits(value: object, schema: dict, document: dict) -> bool:
    """Whether a value is as a JSON Schema in an OpenAPI document says."""
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole).is_valid(value)


@contextlib.contextmanager
def open_page(browser: Browser, url: str, first: str = "") -> Iterator[Page]:
    """The page, which must log nothing and request nothing from another host.

    Each time it is loaded, it runs the JavaScript ``first``.
    """
    context = browser.new_context()
    opened = context.new_page()
    opened.add_init_script(first)
    opened.set_default_timeout(1000 * PATIENCE_SECONDS)
    complaints: list[str] = []
    asked: list[str] = []
    # The console also shows violations of the policy.
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(url)
    yield opened
    context.close()
    # Chromium notes each status of 400 or more, which the page expects.
    assert [
        text
        for text in complaints
        if not text.startswith("Failed to load resource: the server responded")
    ] == []
    allowed = (url.partition("#")[0], "blob:", "data:")
    assert [address for address in asked if not address.startswith(allowed)] == []


@contextlib.contextmanager
def serving(
    *arguments: str | Path,
    limits: str = "",
    host: str = "127.0.0.1",
    cwd: Path | None = None,
    keeps_stderr: bool = False,
    forks_python: bool = True,
    **environment: str,
) -> Iterator[Server]:
    """A server that is ready; ``limits`` is Python code that changes limits before the start.

    Its processes are forked, unless ``forks_python`` is false.
    """
    words = ["serve", *map(str, arguments), "--port", "0", "--json"]
    with forking.start(
        *words,
        code=f"{limits}\n{forking.MODULE}",
        cwd=cwd,
        environment={**os.environ, **environment},
        forks_python=forks_python,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if keeps_stderr else None,
    ) as process:
        try:
            event = json.loads(process.stdout.readline())
            assert event["event"] == "serving"
            yield Server(
                process, host, int(event["url"].rstrip("/").rpartition(":")[2]), event["url"]
            )
        finally:
            process.terminate()
            process.communicate()


def noise_png(seed: int = 0, side_px: int = 32) -> bytes:
    """A PNG file of random pixels."""
    return encode(images.noise(side_px, side_px, seed=seed))


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on the shapes: one with cached data, one with markup as class names, a faulty one.

    The last has a name that is not UTF-8, overflows on bright images, and names data that lies
    where nobody can look.
    """
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    folder = tmp_path_factory.mktemp("runs")
    net = Net(Flatten(), Linear(60), ReLU(), Output())
    data = load_data("shapes")
    training = finish(Training(net, data.train, Recipe(epochs=1)))
    shapes = begin_run(net, data, None, net_name="mlp", name="shapes", runs_dir=folder)
    shapes.folder.save_model(training.model)
    shapes.folder.save_report(evaluate(training.model, data.test.take_evenly(200)))
    train, test = (replace(images, target_names=MARKUP) for images in (DATA.train, DATA.test))
    data = replace(DATA, train=train, test=test)
    training = Training(net, train, RECIPE)
    hostile = begin_run(net, data, RECIPE, net_name="<b>tiny</b>", name="hostile", runs_dir=folder)
    hostile.folder.save_model(training.model)
    with torch.no_grad():
        next(training.model.parameters()).fill_(4e36)
    faulty = begin_run(
        net,
        replace(data, source="/" + "x" * 300),
        RECIPE,
        net_name="tiny",
        name="faulty",
        runs_dir=folder,
    )
    faulty.folder.save_model(training.model)
    return {
        "shapes": shapes.path,
        "hostile": hostile.path,
        "faulty": faulty.path.rename(folder / "faulty\udce9"),
    }


@pytest.fixture(scope="session")
def server(served_runs: dict[str, Path]) -> Iterator[Server]:
    """All of them behind one server, as it is by default."""
    with serving(*served_runs.values()) as started:
        yield started


KINDS = {
    "multi-label": (np.stack([ROWS % 2 > 0, ROWS % 3 > 0], axis=1), ("wet", "old")),
    "binary": (ROWS % 2 > 0, ("a cat?",)),
    "regression": (np.stack([ROWS, 1 / (ROWS + 1)], axis=1).astype(np.float32), ("2020", "2019")),
}
"""Targets of twelve images, and their names."""


def save_untrained(folder: Path, name: str, train: Images, net: Net | TimmNet = NET) -> Run:
    """A run with the weights of a net before its training."""
    is_timm = isinstance(net, TimmNet)
    made = net.module((3, 32, 32), 3) if is_timm else net
    data = replace(DATA, train=train, test=None)
    origin = net if is_timm else None
    run = begin_run(made, data, RECIPE, net_name="tiny", origin=origin, name=name, runs_dir=folder)
    run.folder.save_model(Training(made, train, RECIPE).model)
    return run


@pytest.fixture(scope="session")
def runs_of_each_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained runs: of several targets, a timm net, and one of gray images with a temperature."""
    folder = tmp_path_factory.mktemp("kinds")
    runs = {
        kind: save_untrained(folder, kind, replace(DATA.train, targets=targets, target_names=names))
        for kind, (targets, names) in KINDS.items()
    }
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), np.uint8)
    timm = TimmNet("test_efficientnet.r160_in1k", "none", "")
    runs["timm"] = save_untrained(folder, "timm", replace(DATA.train, pixels=pixels), timm)
    gray = replace(DATA.train, pixels=DATA.train.pixels[..., :1])
    runs["gray"] = save_untrained(folder, "gray", gray)
    runs["gray"].folder.save_calibration(Calibration("val", 100, (3.0,)))
    return {name: run.path for name, run in runs.items()}


@pytest.fixture(scope="session")
def runs_with_val(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A binary run with a low threshold and a regression run, with predictions for val images."""
    folder = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(5)
    names = tuple(map(str, range(200)))
    scratched = replace(DATA.train, targets=ROWS % 2 > 0, target_names=("scratch?",))
    alarm = save_untrained(folder, "alarm", scratched)
    logits = random.normal(size=(200, 1)).astype(np.float32)
    alarm.folder.save_outputs([Outputs("val", logits, random.random(200) < 0.5, names)])
    sizes = np.stack([ROWS, -ROWS], axis=1).astype(np.float32)
    measured = replace(DATA.train, targets=sizes, target_names=("width", "height"))
    size = save_untrained(folder, "size", measured)
    logits = random.normal(size=(200, 2)).astype(np.float32)
    truth = (logits + random.normal(size=logits.shape)).astype(np.float32)
    size.folder.save_outputs([Outputs("val", logits, truth, names)])
    predictor = load_run(alarm.path).predictor(device="cpu")
    limit = predictor.probabilities(DATA.train.pixels[:1]).item()
    threshold = Threshold("scratch?", limit / 2, 40, 90, 39)
    calibration = Calibration("train", 100, (1.0,), "recall=0.95", (threshold,))
    alarm.folder.save_calibration(calibration)
    return {"alarm": alarm.path, "size": size.path}


def find_chromium() -> str | None:
    """The path of Chromium; ``None`` if it is not installed."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)
