"""Groups of processes that train one model together; :data:`ALONE` is a group of one."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from lamina.errors import GroupError, LeaderError
from lamina.training.rendezvous import (
    HEARTBEAT_SECONDS,
    SILENT_SECONDS,
    TIMEOUT_SECONDS,
    Waiting,
    count_start,
    find_host,
    name_ranks,
    send_heartbeats,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

# counts from 0 in restarted processes, which thus find the entries of the first ones
_joins = itertools.count()


@dataclass(frozen=True)
class Group:
    """The processes that torchrun started, as seen by one of them. By default, a single process.

    The methods from :meth:`exchange` on are collective: all processes must call them in the same
    order. They raise ``GroupError`` if a process is lost. :meth:`wait` and :meth:`lead` wait while
    heartbeats arrive, the others for up to a minute.
    """

    rank: int = 0
    size: int = 1
    restarts: int = 0  # how often torchrun has restarted the processes
    local_rank: int = 0  # among the processes of its machine
    _store: Store | None = field(default=None, compare=False, repr=False)
    _kept: Store | None = field(default=None, compare=False, repr=False)
    _waits: Iterator[int] = field(default_factory=itertools.count, compare=False, repr=False)
    _onces: Iterator[int] = field(default_factory=itertools.count, compare=False, repr=False)
    _interrupts: list[bool] = field(default_factory=list, compare=False, repr=False)

    @property
    def is_leader(self) -> bool:
        """Whether this process prints, writes the run and decides for all."""
        return self.rank == 0

    def interrupt(self) -> None:
        """Make all processes yield an event after the same step. Safe in a signal handler."""
        self._interrupts.append(True)

    def take_interrupt(self) -> bool:
        """Whether :meth:`interrupt` was called in this process since the last check."""
        if not self._interrupts:  # a signal may come between any two lines
            return False
        self._interrupts.clear()
        return True

    def deal(self, count: int, rank: int | None = None) -> range:
        """A process's contiguous, nearly equal range of ``count`` items; by default this one's."""
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def exchange(
        self, own: Float[Tensor, "own length"], counts: Sequence[int]
    ) -> Float[Tensor, "all part"]:
        """Part :attr:`rank` of all processes' vectors; ``counts`` are their numbers of vectors.

        All parts have the same length; the last one is padded with zeros.
        """
        import torch.distributed as dist

        part = -(-own.shape[1] // self.size)
        padded = own.new_zeros(len(own), self.size * part)
        padded[:, : own.shape[1]] = own
        sent = padded.view(len(own), self.size, part).transpose(0, 1).contiguous()
        received = own.new_empty(sum(counts), part)
        with self._naming_the_lost():
            dist.all_to_all_single(
                received.view(-1),
                sent.view(-1),
                [count * part for count in counts],
                [len(own) * part] * self.size,
            )
        return received

    def collect(self, part: Float[Tensor, " part"], length: int) -> Float[Tensor, " length"]:
        """The whole vector, of which each process has a part."""
        import torch.distributed as dist

        whole = part.new_empty(self.size * len(part))
        with self._naming_the_lost():
            dist.all_gather(list(whole.chunk(self.size)), part)
        return whole[:length]

    def lead(self, action: Callable[[], bytes]) -> bytes:
        """The leader's result of ``action``; if it fails, other processes raise ``LeaderError``."""
        if self.size == 1:
            return action()
        own = b""
        if self.is_leader:
            try:
                own = DONE + action()
            except Exception as error:  # any error, because the others wait
                with suppress(GroupError):  # the error of the action is more specific
                    self.wait()
                    self._share(FAILED + (str(error) or type(error).__name__).encode())
                raise
        self.wait()
        message = self._share(own)
        if message[:1] == FAILED:
            raise LeaderError(message[1:].decode())
        return message[1:]

    def lead_json(self, action: Callable[[], Any]) -> Any:
        """:meth:`lead` of a value that JSON can hold."""
        return (
            action()
            if self.size == 1
            else json.loads(self.lead(lambda: json.dumps(action()).encode()))
        )

    def _share(self, message: bytes) -> bytes:
        """The leader's message; :meth:`gather` would send as many bytes from every process."""
        import torch
        import torch.distributed as dist

        with self._naming_the_lost():
            length = torch.tensor([len(message)])
            dist.broadcast(length, 0)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if self.is_leader:
                content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def lead_once(self, action: Callable[[], bytes]) -> bytes:
        """Like :meth:`lead` for text; after torchrun restarts, returns the first call's result."""
        key = f"once/{next(self._onces)}"

        def take() -> bytes:
            if self._kept is None:
                return action()
            if not self._kept.check([key]):
                self._kept.set(key, action().decode())
            return bytes(self._kept.get(key))

        return self.lead(take)

    def wait(self) -> None:
        """Wait until all processes have called this, or the heartbeats of one stop."""
        if self._store is None:
            return
        place = f"wait/{next(self._waits)}"
        waiting = Waiting(self._store, place, self.rank, self.size)
        with self._naming_the_lost():
            waiting.finish()

    def gather(self, message: bytes) -> list[bytes]:
        if self.size == 1:
            return [message]
        import torch
        import torch.distributed as dist

        with self._naming_the_lost():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(message)]))
            longest = max(1, *map(int, lengths))
            found = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(
                found, torch.frombuffer(bytearray(message.ljust(longest, b"\0")), dtype=torch.uint8)
            )
        return [
            each.numpy().tobytes()[: int(length)]
            for each, length in zip(found, lengths, strict=True)
        ]

    def any(self, flag: bool) -> bool:
        return b"1" in self.gather(b"1" if flag else b"0")

    def find_deviating(self, value: str) -> str:
        """The processes whose ``value`` differs, as in ``rank 1 deviates``; empty if all agree."""
        values = self.gather(value.encode())
        most = max(values, key=values.count)
        deviating = [rank for rank, one in enumerate(values) if one != most]
        if not deviating:
            return ""
        if 2 * len(deviating) >= len(values):
            return "none of them has a majority"
        return f"{name_ranks(deviating)} deviate{'s' * (len(deviating) == 1)}"

    @contextmanager
    def _naming_the_lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            from lamina.training.device import is_out_of_memory

            if isinstance(error, NotImplementedError) or is_out_of_memory(error):
                raise
            raise GroupError(
                f"{self._find_lost(error)} The last checkpoint is intact. Resume the run with"
                " lamina resume; the number of processes may differ."
            ) from error

    def _find_lost(self, error: RuntimeError) -> str:
        """A sentence that names the processes whose heartbeats have ended."""
        found: list[str] = []
        # In a thread, because the store waits forever if the network is down.
        asking = threading.Thread(target=self._ask, args=(self._store, error, found), daemon=True)
        asking.start()
        asking.join(3 * SILENT_SECONDS)
        if found:
            return found[0]
        return (
            f"The rendezvous host at {find_host()} does not respond: torchrun or its machine has"
            " stopped, or the network is down."
        )

    def _ask(self, store: Store, error: RuntimeError, found: list[str]) -> None:
        with suppress(RuntimeError):
            before = [store.get(f"heartbeat/{rank}") for rank in range(self.size)]
            time.sleep(SILENT_SECONDS)
            silent = [
                rank for rank in range(self.size) if store.get(f"heartbeat/{rank}") == before[rank]
            ]
            sentence = self._describe_lost(store, silent, error)
            # The first finding counts, because processes that find a lost one end, too.
            found.append(bytes(store.compare_set("lost", "", sentence)).decode() or sentence)

    def _describe_lost(self, store: Store, silent: list[int], error: RuntimeError) -> str:
        if not silent:
            cause = str(error).strip().partition("\n")[0]
            return (
                "All processes are running, but one did not reach the exchange in time, or the"
                f" connection between them broke ({cause:.200})."
            )
        if store.check([f"end/{silent[0]}"]):
            return f"Rank {silent[0]} has ended: {store.get(f'end/{silent[0]}').decode()}"
        return (
            f"No response from {name_ranks(silent)} of {self.size} processes: killed, stopped or"
            " disconnected."
        )


DONE, FAILED = b"\0", b"\1"
ALONE = Group()


@contextmanager
def join_group() -> Iterator[Group]:
    """Join the processes that torchrun started, for the duration of the ``with`` block.

    Yields:
        The group, for ``start_run`` and ``Run.iter_train``. Without torchrun, a group of one
        process.

    Raises:
        GroupError: The other processes cannot be reached, or one of them failed.

    >>> with join_group() as group:
    ...     group.size
    1
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    timeout = timedelta(seconds=TIMEOUT_SECONDS)
    local_rank = int(os.environ["LOCAL_RANK"])
    has_gpu = torch.cuda.is_available() and local_rank < torch.cuda.device_count()
    if has_gpu:
        torch.cuda.set_device(local_rank)
    has_ended = threading.Event()
    with ExitStack() as stack:
        try:
            common, rank, size = next(rendezvous("env://", timeout=timeout))
            # torchrun keeps this store when it restarts the processes.
            kept = PrefixStore(f"join {next(_joins)}", common)
            start = count_start(PrefixStore("starts", kept), rank, size, TIMEOUT_SECONDS)
            store = PrefixStore(f"start {start}", kept)
            backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
            dist.init_process_group(
                backend,
                store=PrefixStore("exchange", store),
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
            stack.callback(dist.destroy_process_group)
            own = PrefixStore("group", store)
            own.set(f"heartbeat/{rank}", "")
            heart = threading.Thread(
                target=send_heartbeats, args=(own, rank, has_ended), daemon=True
            )
            heart.start()
            # or the thread aborts the process when Python ends
            stack.callback(heart.join, HEARTBEAT_SECONDS)
            stack.callback(has_ended.set)
            dist.barrier()  # from here on, each has sent a heartbeat
        except (RuntimeError, ValueError) as error:
            raise GroupError(
                f"The other processes cannot be reached through {find_host()}:"
                f" {str(error).partition(chr(10))[0]:.300}. On several machines, set"
                " GLOO_SOCKET_IFNAME to the network interface, such as eth0, and torchrun"
                " --local-addr to this machine's address."
            ) from error
        try:
            yield Group(rank, size, start - 1, local_rank, own, PrefixStore("once", kept))
        except GroupError:
            raise
        except Exception as error:
            with suppress(RuntimeError):
                own.set(f"end/{rank}", str(error))
            raise
