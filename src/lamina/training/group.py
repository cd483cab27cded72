"""The processes that train one model together, and what they exchange; :data:`ALONE` is a process without others.

Every process holds the whole model and sees its own lanes of each batch (lanes.py). torchrun starts the processes and
says in the environment which is which; gloo carries what CPUs exchange, NCCL what NVIDIA GPUs exchange.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from jaxtyping import Float

from lamina.errors import GroupError, LeaderError, name_some

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

TIMEOUT_SECONDS = 60.0
"""A process that does not answer for so long counts as lost."""
POLL_SECONDS = 0.02
BEAT_SECONDS, ANSWER_SECONDS = 1.0, 3.5
"""Each process shows so often that it runs; one that has not for the longer time is lost."""


@dataclass(frozen=True)
class Group:
    """The processes that train together, seen by one of them; by default it is alone.

    The methods from :meth:`exchange` on are collective: every process calls them in the same order, and gets a
    ``GroupError`` if another one does not answer within the timeout.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        restarts: how often torchrun has started them again.
        is_first_here: whether no process of a lower rank is on the same machine.
    """

    rank: int = 0
    size: int = 1
    restarts: int = 0
    is_first_here: bool = True
    _store: Store | None = None
    _interrupts: list[bool] = field(default_factory=list, compare=False, repr=False)

    @property
    def is_leader(self) -> bool:
        """Whether this process prints, writes the run, and decides what all must agree on."""
        return self.rank == 0

    def interrupt(self) -> None:
        """Let all processes yield a record after the same step, the present one or the next.

        A signal handler may call this. What the lanes add up carries it to the other processes.
        """
        self._interrupts.append(True)

    def take_interrupt(self) -> bool:
        """Whether :meth:`interrupt` was called here since this was asked last."""
        was_interrupted = bool(self._interrupts)
        self._interrupts.clear()
        return was_interrupted

    def deal(self, count: int, rank: int | None = None) -> range:
        """Which of ``count`` things a process has, by default this one: neighbours, and nearly as many for each.

        >>> [list(Group(rank, 3).deal(4)) for rank in range(3)]
        [[0], [1], [2, 3]]
        """
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def exchange(self, own: Float[Tensor, "own length"], counts: Sequence[int]) -> Float[Tensor, "all part"]:
        """The part of every process's vectors that is this one's to add up.

        Vectors are cut into as many parts as there are processes, all of one length, the last one filled with zeros.
        The result has part number :attr:`rank` of all vectors, those of the first rank first; ``counts`` says how many
        vectors each process has.
        """
        import torch.distributed as dist

        part = -(-own.shape[1] // self.size)
        padded = own.new_zeros(len(own), self.size * part)
        padded[:, : own.shape[1]] = own
        sent = padded.view(len(own), self.size, part).transpose(0, 1).contiguous()
        received = own.new_empty(sum(counts), part)
        with self._naming_the_lost():
            dist.all_to_all_single(
                received.view(-1), sent.view(-1), [count * part for count in counts], [len(own) * part] * self.size
            )
        return received

    def join(self, part: Float[Tensor, " part"], length: int) -> Float[Tensor, " length"]:
        """The whole vector of ``length``, of which each process has added up a part."""
        import torch.distributed as dist

        whole = part.new_empty(self.size * len(part))
        with self._naming_the_lost():
            dist.all_gather(list(whole.chunk(self.size)), part)
        return whole[:length]

    def share(self, message: bytes = b"", source: int = 0) -> bytes:
        """The message of one process, by default the leader's, which the others wait for."""
        if self.size == 1:
            return message
        import torch
        import torch.distributed as dist

        with self._naming_the_lost():
            length = torch.tensor([len(message)])
            dist.broadcast(length, source)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if self.rank == source and message:
                content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
            dist.broadcast(content, source)
        return content.numpy().tobytes()

    def lead(self, action: Callable[[], bytes]) -> bytes:
        """What an action gives that the leader takes for all.

        Raises:
            LaminaError: that of the leader's action; the others get a ``LeaderError``.
        """
        if self.size == 1:
            return action()
        if not self.is_leader:
            answer = self.share()
            if answer[:1] == FAILED:
                raise LeaderError(answer[1:].decode())
            return answer[1:]
        try:
            found = action()
        except Exception as error:  # the others wait, whatever it is
            self.share(FAILED + str(error).encode())
            raise
        self.share(DONE + found)
        return found

    def gather(self, message: bytes) -> list[bytes]:
        """The messages of all processes, in the order of the ranks."""
        if self.size == 1:
            return [message]
        import torch
        import torch.distributed as dist

        with self._naming_the_lost():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(message)]))
            longest = max(map(int, lengths))
            found = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            padded = bytearray(message.ljust(longest, b"\0"))
            dist.all_gather(found, torch.frombuffer(padded, dtype=torch.uint8) if longest else found[self.rank])
        return [each.numpy().tobytes()[: int(length)] for each, length in zip(found, lengths, strict=True)]

    def any(self, flag: bool) -> bool:
        """Whether it is true for at least one process."""
        if self.size == 1:
            return flag
        import torch
        import torch.distributed as dist

        count = torch.tensor(int(flag))
        with self._naming_the_lost():
            dist.all_reduce(count)
        return bool(count)

    def find_others(self, value: str) -> list[int]:
        """The ranks whose ``value`` is not that of most processes; all of them, where no value is that of most."""
        values = self.gather(value.encode())
        most = max(values, key=values.count)
        is_most = 2 * values.count(most) > len(values)
        return [rank for rank, one in enumerate(values) if one != most or not is_most]

    @contextmanager
    def _naming_the_lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise GroupError(
                f"{self._find_lost()} Nothing is lost but time: resuming continues from the last checkpoint, with any "
                "number of processes."
            ) from error

    def _find_lost(self) -> str:
        """Which processes are lost, in a sentence: those whose heart has stopped."""
        if self._store is None:
            return "Another process was lost."
        try:
            before = [self._store.get(f"beat/{rank}") for rank in range(self.size)]
            time.sleep(ANSWER_SECONDS)
            silent = [str(rank) for rank in range(self.size) if self._store.get(f"beat/{rank}") == before[rank]]
        except RuntimeError:
            host = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
            return f"The rendezvous host at {host} does not answer: its machine or torchrun there has ended."
        if not silent:
            return (
                "All processes still run, but one did not come to the exchange in time, or the connection between them "
                "broke."
            )
        return f"No answer from rank {name_some(silent)} of {self.size} processes: killed, stopped or cut off."


DONE, FAILED = b"\0", b"\1"
ALONE = Group()


def beat(store: Store, rank: int, count: int) -> None:
    """Show that a process runs."""
    store.set(f"beat/{rank}", str(count))


def keep_beating(store: Store, rank: int) -> None:
    """Show it again and again, until the process or the store ends."""
    for count in itertools.count(1):
        time.sleep(BEAT_SECONDS)
        try:
            beat(store, rank, count)
        except RuntimeError:
            return


def count_start(store: Store, rank: int, size: int, timeout_seconds: float) -> int:
    """Which start of the processes this is, from 1, as they agree through a store that keeps what earlier ones wrote.

    torchrun's own count may differ from machine to machine. The leader answers each process by the secret that it left
    under its rank, and lets all go on once each has taken the answer: a secret of an earlier start never does.

    Raises:
        GroupError: a process does not come in time.
    """
    deadline = time.monotonic() + timeout_seconds
    secret = secrets.token_hex(8)
    number = store.add("starts", 1) if rank == 0 else 0
    waiting = set(range(1, size)) if rank == 0 else set()
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
            missing = "the leader" if rank else f"rank {name_some(list(map(str, sorted(waiting))))}"
            raise GroupError(
                f"Waited {timeout_seconds:g} seconds for {missing} of {size} processes, which did not come. Resuming "
                "continues from the last checkpoint, with any number of processes."
            )
        time.sleep(POLL_SECONDS)
    store.set(f"go/{number}", "")
    return number


@contextmanager
def join_group(timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Group]:
    """The group that torchrun has put this process into; :data:`ALONE` without torchrun.

    Raises:
        GroupError: the others cannot be reached.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    timeout = timedelta(seconds=timeout_seconds)
    local_rank = int(os.environ["LOCAL_RANK"])
    has_gpu = torch.cuda.is_available() and local_rank < torch.cuda.device_count()
    if has_gpu:
        torch.cuda.set_device(local_rank)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        start = count_start(PrefixStore("starts", store), rank, size, timeout_seconds)
        store = PrefixStore(f"start {start}", store)
        backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("exchange", store), rank=rank, world_size=size, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        host = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise GroupError(f"The other processes cannot be reached through {host}: {error}") from error
    try:
        hearts = PrefixStore("group", store)
        beat(hearts, rank, 0)
        dist.barrier()  # from here on, all have a heart
        threading.Thread(target=keep_beating, args=(hearts, rank), daemon=True).start()
        yield Group(rank, size, start - 1, local_rank == 0, hearts)
    finally:
        dist.destroy_process_group()
