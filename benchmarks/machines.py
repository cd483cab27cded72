"""Emulated machines: network namespaces joined by a switch, and the torchrun processes on them.

Each machine has one cable, a veth pair, to a bridge in its own namespace. The cable can be cut, or
slowed down in both directions with tc's tbf. The real network is not touched, and everything is
removed when the program ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PORT = 29500
MARK = "LAMINA_BENCHMARK"
"""Environment variable that marks all processes started here, to find and end remaining ones."""


def find_hindrance() -> str | None:
    """The reason why this system cannot emulate machines, as a sentence; ``None`` if it can."""
    if not sys.platform.startswith("linux"):
        return "Network namespaces need Linux."
    if os.geteuid() != 0:
        return "Network namespaces need root."
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"The command {missing[0]} is missing; install iproute2." if missing else None


def call(*words: object) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))} failed: {done.stderr.strip()}")


@dataclass(frozen=True)
class Machine:
    """A namespace whose cable joins its ``eth0`` with the switch's ``port``."""

    name: str
    address: str
    switch: str
    port: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix of a command that runs there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Cut the cable: packets are lost without notice."""
        call("ip", "-n", self.switch, "link", "set", self.port, "down")

    def limit(self, gigabits: float) -> None:
        """Limit the cable to ``gigabits`` Gbit/s in each direction."""
        words = (
            "root",
            "tbf",
            "rate",
            f"{round(1000 * gigabits)}mbit",
            "burst",
            "256kb",
            "latency",
            "50ms",
        )
        call("tc", "-n", self.name, "qdisc", "replace", "dev", "eth0", *words)
        call("tc", "-n", self.switch, "qdisc", "replace", "dev", self.port, *words)


@contextmanager
def join_machines(count: int) -> Iterator[tuple[Machine, ...]]:
    """Create ``count`` machines on one switch, and always remove them."""
    tag = uuid.uuid4().hex[:6]
    switch = f"lamina-{tag}"
    machines = tuple(
        Machine(f"{switch}-{number}", f"10.77.0.{number}", switch, f"port{number}")
        for number in range(1, count + 1)
    )
    try:
        call("ip", "netns", "add", switch)
        call("ip", "-n", switch, "link", "add", "bridge0", "type", "bridge")
        call("ip", "-n", switch, "link", "set", "bridge0", "up")
        for machine in machines:
            call("ip", "netns", "add", machine.name)
            cable = ("type", "veth", "peer", "name", machine.port, "netns", switch)
            call("ip", "link", "add", "eth0", "netns", machine.name, *cable)
            call("ip", "-n", switch, "link", "set", machine.port, "master", "bridge0", "up")
            call("ip", "-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                call("ip", "-n", machine.name, "link", "set", device, "up")
        yield machines
    finally:
        for name in (*(machine.name for machine in machines), switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def read_environment(process: int) -> dict[str, str]:
    """The environment of a process; empty if it has ended."""
    try:
        content = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)


def is_running(process: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in (
            "Z",
            "X",
        )
    except OSError:
        return False


def read_status(process: int) -> int | None:
    """The exit status of a zombie process; otherwise ``None``."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] == "Z" else None


def wait_until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Wait until a condition holds; return the seconds, or ``None`` if it takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass
class Launched:
    """A torchrun with its workers and their output.

    Args:
        words: command of each worker, after ``python``.
        log: file for the output.
        options: options of torchrun.
        machine: machine to run on; by default none.
        threads: threads of each worker.
        variables: additional environment variables.
    """

    words: Sequence[str]
    log: Path
    options: Sequence[str]
    machine: Machine | None = None
    threads: int = 1
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start it."""
        self.mark = uuid.uuid4().hex
        environment = {
            **os.environ,
            "COLUMNS": "200",
            "OMP_NUM_THREADS": str(self.threads),
            MARK: self.mark,
        }
        options = list(self.options)
        prefix: tuple[str, ...] = ()
        if self.machine is not None:
            environment["GLOO_SOCKET_IFNAME"] = "eth0"
            options += ["--local-addr", self.machine.address]
            prefix = self.machine.prefix
        command = [*prefix, sys.executable, "-m", "torch.distributed.run", *options, *self.words]
        self.began = time.monotonic()
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**environment, **self.variables},
            )

    def text(self) -> str:
        """The output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[int]:
        """The running processes that this torchrun started."""
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
        return [
            each
            for each in found
            if read_environment(each).get(MARK) == self.mark and is_running(each)
        ]

    def workers(self) -> dict[int, int]:
        """The running workers by rank."""
        ranks = {each: read_environment(each).get("RANK") for each in self.processes()}
        return {
            int(rank): process
            for process, rank in sorted(ranks.items(), reverse=True)
            if rank is not None
        }

    def wait_for(self, text: str, seconds: float = 120.0, times: int = 1) -> None:
        """Wait until a text has been printed ``times`` times.

        Raises:
            OSError: if that does not happen in time.
        """

        def has_come() -> bool:
            return self.text().count(text) >= times or self.process.poll() is not None

        wait_until(has_come, seconds)
        if self.text().count(text) < times:
            raise OSError(f"expected {text!r} within {seconds:.0f} s, got:\n{self.text()[-3000:]}")

    def wait(self, seconds: float) -> int | None:
        """Wait at most ``seconds`` and return the exit status; ``None`` if it still runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def end(self) -> None:
        """Kill everything of it that still runs."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Launched:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        self.end()


def among(
    nodes: int, host: Machine | None = None, is_host: bool = False, per_node: int = 1
) -> list[str]:
    """Options of torchrun for several machines; ``host`` has the rendezvous, or this machine."""
    address = "127.0.0.1" if host is None else host.address
    return [
        "--nnodes",
        str(nodes),
        "--nproc-per-node",
        str(per_node),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"{address}:{PORT}",
        "--rdzv-conf",
        f"is_host={int(is_host)}",
    ]


def alone(processes: int) -> list[str]:
    """Options of torchrun for several processes on one machine."""
    return ["--standalone", "--nproc-per-node", str(processes)]
