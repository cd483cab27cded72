"""Start, waiting and heartbeats of processes, through torchrun's store."""

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

TIMEOUT_SECONDS = 60.0  # a process that does not respond for this long is lost
POLL_SECONDS = 0.02
HEARTBEAT_SECONDS, SILENT_SECONDS = 1.0, 3.5
"""Time between heartbeats, and the silence after which a process counts as lost once an exchange
has failed."""
ABSENT_SECONDS = 15.0
"""Silence after which a process that others wait for is lost: less than the 30 s after which
torchrun kills the others, so that they can report it."""


def name_ranks(ranks: Iterable[int]) -> str:
    """Ranks as text, such as ``ranks 0, 2``."""
    found = [str(rank) for rank in ranks]
    return f"rank{'s' * (len(found) > 1)} {name_some(found)}"


def find_host() -> str:
    return f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"


class Waiting:
    """Waits for all processes, in a thread: the store blocks forever if the network is down."""

    def __init__(self, store: Store, place: str, rank: int, size: int) -> None:
        self._store, self._place, self._rank = store, place, rank
        self._missing = set(range(size)) - {rank}
        self._last_reply_at = time.monotonic()
        self._problem = ""
        self._ended = threading.Event()

    def finish(self) -> None:
        """Return when all have arrived; ``RuntimeError`` if a process or the store is lost."""
        threading.Thread(target=self._poll, daemon=True).start()
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if time.monotonic() - self._last_reply_at > TIMEOUT_SECONDS:
                raise RuntimeError("the store does not respond")
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
        """Check whether a process has arrived; returns its last heartbeat and when it changed."""
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
    for count in itertools.count():
        try:
            store.set(f"heartbeat/{rank}", str(count))
        except RuntimeError:
            return
        if has_ended.wait(HEARTBEAT_SECONDS):
            return


def count_start(store: Store, rank: int, size: int, timeout_seconds: float) -> int:
    """The number of this start, from 1, agreed through a store with earlier starts' entries."""
    # The count of torchrun may differ between machines. Each process leaves a secret under its
    # rank, the leader sends the number to that secret, and all continue once each has confirmed it;
    # secrets of earlier starts never do.
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
                f"{missing[:1].upper() + missing[1:]} of {size} processes did not start within"
                f" {timeout_seconds:g} seconds. Resume the run with lamina resume; the number of"
                " processes may differ."
            )
        time.sleep(POLL_SECONDS)
    store.set(f"go/{number}", "")
    return number
