"""``lamina studio`` on this machine: first paint, bytes, cost of an open page, events, memory.

The page is opened in Chromium (Debian's package). First paint is what the browser reports, from the
request on. The cost of an open page is the time of the same training with a visible page, divided
by that without a page, as the median of alternating turns; nothing else asks the studio meanwhile.
For ``--minutes``, a client counts the events of a training, and an open page how often it had to
connect again and read the state. Memory is the resident memory of the studio after the first and
after the last of ``--trainings``.

    python benchmarks/studio.py --turns 5 --trainings 100 --minutes 60 --json studio.json
"""

from __future__ import annotations

import contextlib
import json as json_format
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import tyro

NET = (
    "Conv2d(16, 3), BatchNorm(), ReLU(), MaxPool2d(2), Conv2d(32, 3), BatchNorm(), ReLU(),"
    " Flatten(), Output()"
)
TINY = "Flatten(), Output()"


def main(
    turns: int = 3,
    epochs: int = 8,
    trainings: int = 20,
    minutes: float = 1.0,
    json: Path | None = None,
) -> None:
    """Measure the studio.

    Args:
        turns: trainings with and without a page.
        epochs: of each of these trainings.
        trainings: short trainings, for the memory.
        minutes: how long events are counted.
        json: file for the results.
    """
    with tempfile.TemporaryDirectory() as folder, opening(Path(folder)) as studio:
        act(studio, "runs")  # loads torch
        rows = {
            **open_page(studio),
            **measure_cost(studio, turns, epochs),
            **measure_memory(studio, trainings),
        }
        rows |= count_events(studio, minutes)
    for name, value in rows.items():
        print(f"{name:<28} {value:,.3g}" if isinstance(value, float) else f"{name:<28} {value:,}")
    if json is not None:
        json.write_text(json_format.dumps(rows) + "\n", encoding="utf-8")


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[tuple[str, int]]:
    words = [
        sys.executable,
        "-m",
        "lamina",
        "studio",
        "--no-browser",
        "--no-token",
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield json_format.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.terminate()


def act(studio: tuple[str, int], action: str, **values: Any) -> Any:
    request = urllib.request.Request(f"{studio[0]}api/{action}", json_format.dumps(values).encode())
    with urllib.request.urlopen(request) as response:
        return json_format.load(response)


@contextlib.contextmanager
def showing(studio: tuple[str, int]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(studio[0])
        page.wait_for_selector("#data-view img", timeout=60_000)
        yield page
        browser.close()


def open_page(studio: tuple[str, int]) -> dict[str, Any]:
    read = (
        "[performance.getEntriesByName('first-contentful-paint')[0].startTime, "
        "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)]"
    )
    with showing(studio) as page:
        paint_ms, size = page.evaluate(read)
    return {"first_paint_ms": float(paint_ms), "page_bytes": int(size)}


def train(studio: tuple[str, int], net: str, epochs: int) -> float:
    """Seconds of the epochs of a training."""
    values = {"net": net, "source": "shapes", "val": "0.1", "fields": {"epochs": str(epochs)}}
    with listening(studio) as events:
        job = act(studio, "train", **values)
        for event in events:
            if event.get("number") == job["number"] and event.get("state") == "done":
                break
    return sum(row["train_seconds"] for row in act(studio, "run", run=job["run"])["rows"])


@contextlib.contextmanager
def listening(studio: tuple[str, int]) -> Iterator[Iterator[dict[str, Any]]]:
    """The events that the studio sends during the block."""
    with urllib.request.urlopen(f"{studio[0]}api/events") as response:
        next(line for line in response if line.startswith(b": open"))
        yield (json_format.loads(line[6:]) for line in response if line.startswith(b"data: "))


def measure_cost(studio: tuple[str, int], turns: int, epochs: int) -> dict[str, Any]:
    without, with_page = [], []
    for _ in range(turns):
        without.append(train(studio, NET, epochs))
        with showing(studio) as page:
            page.evaluate("0")
            with_page.append(train(studio, NET, epochs))
    return {"page_cost_ratio": statistics.median(with_page) / statistics.median(without)}


def measure_memory(studio: tuple[str, int], trainings: int) -> dict[str, Any]:
    found = []
    for _ in range(trainings):
        train(studio, TINY, 1)
        act(studio, "look", run=act(studio, "runs")[0]["name"])
        found.append(read_memory(studio[1]))
    return {"trainings": trainings, "first_mb": found[0], "last_mb": found[-1]}


def read_memory(process: int) -> float:
    """Resident memory of a process and its children, in MB."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    sizes = [Path(f"/proc/{one}/statm").read_text().split()[1] for one in (process, *children)]
    return sum(map(int, sizes)) * 4096 / 1e6


def count_events(studio: tuple[str, int], minutes: float) -> dict[str, Any]:
    """Events that a client received, and how often an open page connected again."""
    asked: list[str] = []
    until = time.monotonic() + 60 * minutes
    with showing(studio) as page, listening(studio) as events:
        page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
        act(studio, "train", net=TINY, source="shapes", fields={"epochs": "100000"}, name="long")
        count = sum(1 for _ in takewhile(lambda _: time.monotonic() < until, events))
        page.evaluate("0")  # receives the requests
    act(studio, "stop", run="long")
    return {"events": count, "page_reconnections": asked.count("state")}


if __name__ == "__main__":
    tyro.cli(main)
