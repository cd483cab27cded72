"""The processes that torchrun started to train one model together, or else this process alone.

The group is global, like the process group of ``torch.distributed``. The functions from
:func:`exchange` on are collective: all processes call them in the same order. They raise
``GroupError`` if a process is lost; torchrun reports which process, and stops all.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from lamina.errors import GroupError, LeaderError
from lamina.training.device import is_out_of_memory

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for a process that decodes images or evaluates; if one is killed, they
notice at once."""
SUCCESS = b"+"
FAILURE = b"-"
"""First byte of the leader's message."""
_joins = itertools.count()
_interrupts: list[bool] = []  # a signal handler may append between any two lines


@contextmanager
def join_group() -> Iterator[None]:
    """Join the processes that torchrun started, for the duration of the ``with`` block.

    All processes call ``start_run`` and ``Run.train``, in the same order. If a process
    group exists already, this does nothing.

    Raises:
        GroupError: The other processes cannot be reached.

    >>> with join_group():  # without torchrun, nothing happens
    ...     size()
    1
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield
        return
    has_gpu = torch.cuda.is_available() and local_rank() < torch.cuda.device_count()
    if has_gpu:
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "cpu:gloo"
    try:
        # Each join has its own entries in the store, which outlives it.
        store, place, processes = next(rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(
            backend,
            store=PrefixStore(f"join {next(_joins)}", store),
            rank=place,
            world_size=processes,
            timeout=TIMEOUT,
        )
        dist.all_reduce(torch.zeros(1))  # monitored_barrier does not accept these backends
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise GroupError(
            f"The other processes cannot be reached through {address}: {_describe_cause(error)}. On"
            " several machines, set GLOO_SOCKET_IFNAME to the network interface, such as eth0, and"
            " torchrun --local-addr to this machine's address."
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_leader() -> bool:
    """Whether this process prints, writes the run and decides for all."""
    return rank() == 0


def deal(count: int, processes: int, process: int) -> range:
    """A process's contiguous, nearly equal range of ``count`` items."""
    return range(process * count // processes, (process + 1) * count // processes)


def interrupt() -> None:
    """Make all processes yield an event after the same step. Safe in a signal handler."""
    _interrupts.append(True)


def take_interrupt() -> bool:
    """Whether :func:`interrupt` was called in this process since the last check."""
    is_interrupted = bool(_interrupts)
    if is_interrupted:
        _interrupts.clear()
    return is_interrupted


def exchange(
    vectors: Float[Tensor, "own length"], counts: Sequence[int]
) -> Float[Tensor, "all part"]:
    """Part :func:`rank` of all processes' vectors; ``counts`` are their numbers of vectors.

    All parts have the same length; the last one is padded with zeros.
    """
    processes = size()
    part = -(-vectors.shape[1] // processes)
    padded = vectors.new_zeros(len(vectors), processes * part)
    padded[:, : vectors.shape[1]] = vectors
    sent = padded.view(len(vectors), processes, part).transpose(0, 1).contiguous()
    received = vectors.new_empty(sum(counts), part)
    with _explaining():
        dist.all_to_all_single(
            received.view(-1),
            sent.view(-1),
            [count * part for count in counts],
            [len(vectors) * part] * processes,
        )
    return received


def collect(part: Float[Tensor, " part"], length: int) -> Float[Tensor, " length"]:
    """The whole vector, joined from the parts of all processes."""
    whole = part.new_empty(size() * len(part))
    with _explaining():
        dist.all_gather(list(whole.chunk(size())), part)
    return whole[:length]


@torch.no_grad()
def share_weights(module: nn.Module) -> None:
    """Give all processes the leader's weights: random or fitted weights may round differently."""
    if size() > 1:
        with _explaining():
            for tensor in module.state_dict().values():
                content = tensor.contiguous()
                dist.broadcast(content, src=0)
                tensor.copy_(content)


def gather(message: bytes) -> list[bytes]:
    """The messages of all processes, by rank."""
    if size() == 1:
        return [message]
    return [_broadcast(message, source) for source in range(size())]


def lead(action: Callable[[], bytes]) -> bytes:
    """The leader's result of ``action``; if it fails, other processes raise ``LeaderError``."""
    if size() == 1:
        return action()
    message = b""
    if is_leader():
        try:
            message = SUCCESS + action()
        except Exception as error:  # any error, because other processes wait
            with suppress(GroupError):  # the error of the action is more specific
                _broadcast(FAILURE + (str(error) or type(error).__name__).encode())
            raise
    received = _broadcast(message)
    if received.startswith(FAILURE):
        raise LeaderError(received.removeprefix(FAILURE).decode())
    return received.removeprefix(SUCCESS)


def lead_value(action: Callable[[], Any]) -> Any:
    """:func:`lead` for a value that JSON can store."""
    return json.loads(lead(lambda: json.dumps(action()).encode()))


def _broadcast(message: bytes, source: int = 0) -> bytes:
    """The message of the process ``source``, by default the leader's."""
    with _explaining():
        length = torch.tensor([len(message)])
        dist.broadcast(length, src=source)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if message and rank() == source:
            content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        dist.broadcast(content, src=source)
    return content.numpy().tobytes()


def find_deviating(value: str) -> str:
    """The processes whose ``value`` differs, as in ``rank 1 deviates``; empty if all agree."""
    values = gather(value.encode())
    most = max(values, key=values.count)
    deviating = [str(place) for place, other in enumerate(values) if other != most]
    if not deviating:
        return ""
    if 2 * len(deviating) >= len(values):
        return "none of them has a majority"
    if len(deviating) == 1:
        return f"rank {deviating[0]} deviates"
    return f"ranks {', '.join(deviating)} deviate"


@contextmanager
def _explaining() -> Iterator[None]:
    """Turn a failed exchange into a ``GroupError``."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, NotImplementedError) or is_out_of_memory(error):
            raise
        raise GroupError(
            "Another process of the group has ended, or the connection to it broke"
            f" ({_describe_cause(error)}); torchrun reports which one. The last checkpoint is"
            " intact. Resume the run with lamina resume; the number of processes may differ."
        ) from error


def _describe_cause(error: Exception) -> str:
    """The first sentence of gloo's message, without the source location."""
    line = str(error).strip().partition("\n")[0]
    sentence = re.sub(r"^\[\S+\] ", "", line).partition(". ")[0]
    return f"{sentence:.200}"
