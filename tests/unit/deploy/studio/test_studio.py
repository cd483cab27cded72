"""The threads of the studio that compute: what waits for what, and what is replaced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch

from lamina.deploy.studio import computing
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.events import Events
from lamina.deploy.studio.jobs import Jobs
from lamina.deploy.studio.studio import ReplacedError, Studio


@dataclass
class Gate:
    """An action that says when it has begun, and ends once the gate is open."""

    begun: threading.Event = field(default_factory=threading.Event)
    is_open: threading.Event = field(default_factory=threading.Event)
    computed: list[str] = field(default_factory=list)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()

    def wait(folder: DataFolder, name: str) -> str:
        gate.computed.append(name)
        gate.begun.set()
        gate.is_open.wait()
        return name

    monkeypatch.setitem(computing.ACTIONS, "explain", wait)
    threads = torch.get_num_threads()
    yield gate
    gate.is_open.set()
    torch.set_num_threads(threads)


@pytest.fixture
def idle_studio(tmp_path) -> Studio:
    runs_dir = tmp_path / "runs"
    return Studio(DataFolder(tmp_path, runs_dir), Jobs(runs_dir, Events()))


async def let_tasks_run() -> None:
    """Let all tasks run until each waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_request_that_waits_is_replaced_and_delays_nothing_quick(idle_studio, gate):
    async def check() -> None:
        def begin(name: str, replaces: str) -> asyncio.Task[str]:
            return asyncio.create_task(idle_studio.compute("explain", {"name": name}, replaces))

        first = begin("first", "page")
        await let_tasks_run()
        gate.begun.wait()
        waiting = [begin(name, "page") for name in ("second", "third")]
        other = begin("other", "another page")
        await let_tasks_run()
        with pytest.raises(ReplacedError, match="A newer request replaced this one"):
            await waiting[0]
        assert await idle_studio.compute("runs", {}) == []  # needs no slow thread
        gate.is_open.set()
        assert [await task for task in (first, waiting[1], other)] == ["first", "third", "other"]

    asyncio.run(check())


def test_a_request_whose_client_has_left_is_not_computed(idle_studio, gate):
    async def check() -> None:
        tasks = []
        for name in ("first", "left", "last"):
            values = {"name": name}
            tasks.append(asyncio.create_task(idle_studio.compute("explain", values, name)))
        await let_tasks_run()
        gate.begun.wait()
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        gate.is_open.set()
        assert await tasks[0] == "first" and await tasks[2] == "last"

    asyncio.run(check())
    assert gate.computed == ["first", "last"]
