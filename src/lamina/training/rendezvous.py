"""How processes find each other through torchrun's store, wait for each other, and notice who is lost."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamina.errors import GroupError, name_some

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

TIMEOUT_SECONDS = 60.0  # a process that does not answer for so long counts as lost
POLL_SECONDS = 0.02
HEARTBEAT_SECONDS, SILENT_SECONDS = 1.0, 3.5
"""Each process sends a heartbeat so often; when exchanges fail, one that sends none for the longer time is lost."""
ABSENT_SECONDS = 15.0
"""One that is waited for is lost when it sends none for so long: torchrun kills the others 30 seconds after a death,
and they are to say before that who was lost."""


def name_ranks(ranks: Iterable[int]) -> str:
    """Some ranks, in words, such as ``ranks 0, 2``."""
    found = [str(rank) for rank in ranks]
    return f"rank{'s' * (len(found) > 1)} {name_some(found)}"


def find_host() -> str:
    return f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"


class Waiting:
    """A wait for all, in a thread: where the cable is cut, the store waits for an answer without end."""

    def __init__(self, store: Store, place: str, rank: int, size: int) -> None:
        self._store, self._place, self._rank = store, place, rank
        self._missing = set(range(size)) - {rank}
        self._last_reply_at = time.monotonic()
        self._problem = ""
        self._ended = threading.Event()

    def finish(self) -> None:
        """Return when all have come; ``RuntimeError`` if one of them, or the store, is lost."""
        threading.Thread(target=self._poll, daemon=True).start()
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if time.monotonic() - self._last_reply_at > TIMEOUT_SECONDS:
                raise RuntimeError("the store does not answer")
        if self._problem:
            raise RuntimeError(self._problem)

    def _poll(self) -> None:
        try:
            self._store.set(f"{self._place}/{self._rank}", "")
            seen = {rank: (b"", time.monotonic()) for rank in self._missing}
            while not self._problem:
                for rank in sorted(self._missing):
                    seen[rank] = self._look(rank, *seen[rank])
                self._last_reply_at = time.monotonic()
                if not self._missing:
                    break
                time.sleep(POLL_SECONDS)
        except RuntimeError as error:
            self._problem = str(error)
        finally:
            self._ended.set()

    def _look(self, rank: int, heartbeat: bytes, since: float) -> tuple[bytes, float]:
        """Whether a process has come; else its last heartbeat, and when that was new."""
        if self._store.check([f"{self._place}/{rank}"]):
            self._missing.remove(rank)
        elif self._store.check([f"end/{rank}"]):
            self._problem = f"rank {rank} has ended"
        elif (found := self._store.get(f"heartbeat/{rank}")) != heartbeat:
            return found, time.monotonic()
        elif time.monotonic() - since > ABSENT_SECONDS:
            self._problem = f"rank {rank} sends no heartbeats"
        return heartbeat, since


def send_heartbeats(store: Store, rank: int, has_ended: threading.Event) -> None:
    """Show again and again that a process runs, until ``has_ended`` or the store ends."""
    for count in itertools.count():
        try:
            store.set(f"heartbeat/{rank}", str(count))
        except RuntimeError:
            return
        if has_ended.wait(HEARTBEAT_SECONDS):
            return


def count_start(store: Store, rank: int, size: int, timeout_seconds: float) -> int:
    """Which start of the processes this is, from 1, as they agree through a store that keeps earlier ones' entries."""
    # torchrun's own count may differ from machine to machine. The leader answers each process by the secret that it
    # left under its rank, and lets all go on once each has taken the answer: a secret of an earlier start never does.
    deadline = time.monotonic() + timeout_seconds
    secret = secrets.token_hex(8)
    number = store.add("starts", 1) if rank == 0 else 0
    waiting = set(range(1, size)) if rank == 0 else set()
    if rank:
        store.set(f"came/{rank}", secret)
    while rank or waiting:
        for other in sorted(waiting):
            if store.check([f"came/{other}"]):
                its = store.get(f"came/{other}").decode()
                store.set(f"start/{its}", str(number))
                if store.check([f"taken/{its}/{number}"]):
                    waiting.remove(other)
        if rank and store.check([f"start/{secret}"]):
            number = int(store.get(f"start/{secret}"))
            store.set(f"taken/{secret}/{number}", "")
            if store.check([f"go/{number}"]):
                return number
        if time.monotonic() > deadline:
            missing = name_ranks([0] if rank else sorted(waiting))
            raise GroupError(
                f"Waited {timeout_seconds:g} seconds for {missing} of {size} processes, which did not start. Resuming "
                "continues from the last checkpoint, with any number of processes."
            )
        time.sleep(POLL_SECONDS)
    store.set(f"go/{number}", "")
    return number
