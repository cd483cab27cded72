"""The processes of the studio that compute: their queue, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from http.client import HTTPConnection
from pathlib import Path

import pytest

from lamina.deploy.studio.studio import OPENING
from lamina.deploy.web.torch_process import Call, ReplacedError, TorchProcess
from support import forking
from support.servers import wait_for
from support.studios import (
    SMALL,
    opening,
    train_quickly,
)


def test_a_waiting_request_is_replaced_and_delays_nothing_quick(tmp_path):
    with opening(tmp_path) as studio:
        studio.copy_runs(train_quickly(), "run")
        assert "predicted" in studio.act("look", run="run")
        assert "verdict" in studio.act("report", run="run")
        _, slow = studio.find_children("torch_process")

        def begin(action: str, page: str = "page") -> HTTPConnection:
            values = {"run": "run", "replaces": f"{page} {action}"}
            return studio.begin(f"/api/{action}", json.dumps(values).encode())

        def read(begun: HTTPConnection) -> str:
            with contextlib.closing(begun):
                return begun.getresponse().read().decode()

        os.kill(slow, signal.SIGSTOP)
        try:
            report = begin("report")
            explained = begin("explain")
            for _ in range(3):
                newer = begin("explain")
                assert "A newer request replaced this one." in read(explained)
                explained = newer
            other = begin("explain", page="other")
            assert "predicted" in studio.act("look", run="run")  # needs no slow process
            os.kill(slow, signal.SIGCONT)
            assert '"verdict"' in read(report)
            assert '"map"' in read(explained)
            assert '"map"' in read(other)
        finally:
            os.kill(slow, signal.SIGCONT)


async def let_tasks_run() -> None:
    """Let all tasks run until each waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_process_goes_on_with_a_call_whose_client_has_left():
    async def check() -> None:
        process = TorchProcess(OPENING)
        split = Call("lamina.deploy.studio.net_cards.split_text", (SMALL,))
        try:
            assert len(await process.call(split)) == 5
            child = process._process.pid
            os.kill(child, signal.SIGSTOP)
            left = asyncio.create_task(process.call(split))
            await let_tasks_run()
            left.cancel()
            waiting = asyncio.create_task(process.call(split, "key"))
            await let_tasks_run()
            newer = asyncio.create_task(process.call(split, "key"))
            with pytest.raises(ReplacedError):
                await waiting
            os.kill(child, signal.SIGCONT)
            assert len(await newer) == 5 and process._process.pid == child
        finally:
            await process.close()

    asyncio.run(check())


PARENT = """
import asyncio, time
from http.client import HTTPConnection
from pathlib import Path
from lamina.deploy.web.torch_process import Call, TorchProcess

async def main():
    process = TorchProcess(Call("os.getpid"))
    Path("child").write_text(str(await process.start()))
    await process.compute(Call("time.sleep", (600,)), 600)

asyncio.run(main())
"""


def test_a_process_ends_when_its_parent_is_killed(tmp_path):
    with forking.start(code=PARENT, cwd=tmp_path, forks_python=True) as parent:
        wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        child = Path("/proc", (tmp_path / "child").read_text())
        parent.kill()
    wait_for(lambda: not child.exists())


def test_a_process_that_is_killed_is_replaced(studio):
    assert studio.act("runs") == []
    os.kill(studio.find_child("torch_process"), signal.SIGKILL)
    wait_for(lambda: studio.act("runs") == [])
