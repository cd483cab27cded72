"""Machines that are network namespaces of this one, joined by a switch, and what torchrun starts on them.

Each machine has one cable, a veth pair, to a bridge in a namespace of its own. A cable can be cut, and slowed down by
tc's tbf in both directions. Nothing of the real network is touched, and all of it goes when the program ends.
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
"""In the environment of all that is started here, so that what is left can be found and ended."""


def find_hindrance() -> str | None:
    """Why this system cannot have such machines, in a sentence; ``None`` if it can."""
    if not sys.platform.startswith("linux"):
        return "Network namespaces need Linux."
    if os.geteuid() != 0:
        return "Network namespaces need root."
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"There is no command {missing[0]}, of iproute2." if missing else None


def call(*words: object) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))} failed: {done.stderr.strip()}")


@dataclass(frozen=True)
class Machine:
    """One of the namespaces; its cable ends in ``eth0`` here and in the switch's ``port``."""

    name: str
    address: str
    switch: str
    port: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that runs there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Pull the cable out of the switch: what is sent is lost, and nobody is told."""
        call("ip", "-n", self.switch, "link", "set", self.port, "down")

    def limit(self, gigabits: float) -> None:
        """Let so many Gbit/s through the cable in each direction."""
        words = ("root", "tbf", "rate", f"{round(1000 * gigabits)}mbit", "burst", "256kb", "latency", "50ms")
        call("tc", "-n", self.name, "qdisc", "replace", "dev", "eth0", *words)
        call("tc", "-n", self.switch, "qdisc", "replace", "dev", self.port, *words)


@contextmanager
def join_machines(count: int) -> Iterator[tuple[Machine, ...]]:
    """So many machines on one switch, removed in any case."""
    tag = uuid.uuid4().hex[:6]
    switch = f"lamina-{tag}"
    machines = tuple(
        Machine(f"{switch}-{number}", f"10.77.0.{number}", switch, f"port{number}") for number in range(1, count + 1)
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
    """The variables that a process was started with; none if it has ended."""
    try:
        content = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)


def is_running(process: int) -> bool:
    """Whether a process has not ended; one that is only waited for has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def read_status(process: int) -> int | None:
    """The exit status of a process that has ended and that its parent has not waited for; else ``None``."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] == "Z" else None


def wait_until(condition: Callable[[], bool], seconds: float) -> float | None:
    """The seconds until a condition holds; ``None`` if it does not within ``seconds``."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass
class Launched:
    """A torchrun, all that it and its workers print, and how to find those.

    Args:
        words: what each worker runs, after ``python``.
        log: the file that gets the output.
        options: torchrun's own.
        machine: where; by default outside of any.
        threads: of each worker.
        variables: more of the environment.
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
        environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": str(self.threads), MARK: self.mark}
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
                command, stdout=file, stderr=subprocess.STDOUT, env={**environment, **self.variables}
            )

    def text(self) -> str:
        """What has been printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[int]:
        """All that were started and run."""
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
        return [each for each in found if read_environment(each).get(MARK) == self.mark and is_running(each)]

    def workers(self) -> dict[int, int]:
        """The workers that run, by rank."""
        ranks = {each: read_environment(each).get("RANK") for each in self.processes()}
        return {int(rank): process for process, rank in sorted(ranks.items(), reverse=True) if rank is not None}

    def wait_for(self, text: str, seconds: float = 120.0, times: int = 1) -> None:
        """Wait until it has been printed so often.

        Raises:
            OSError: that did not happen.
        """

        def has_come() -> bool:
            return self.text().count(text) >= times or self.process.poll() is not None

        wait_until(has_come, seconds)
        if self.text().count(text) < times:
            raise OSError(f"expected {text!r} within {seconds:.0f} s, got:\n{self.text()[-3000:]}")

    def wait(self, seconds: float) -> int | None:
        """Its exit status; ``None`` if it has not ended within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def end(self) -> None:
        """Kill what still runs of it."""
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


def among(nodes: int, host: Machine | None = None, is_host: bool = False, per_node: int = 1) -> list[str]:
    """The options of torchrun on each of several machines; the rendezvous is on ``host``, by default on this one."""
    address = "127.0.0.1" if host is None else host.address
    return [
        "--nnodes", str(nodes), "--nproc-per-node", str(per_node), "--rdzv-backend", "c10d", "--rdzv-endpoint",
        f"{address}:{PORT}", "--rdzv-conf", f"is_host={int(is_host)}",
    ]  # fmt: skip


def alone(processes: int) -> list[str]:
    """The options of torchrun for so many processes on one machine."""
    return ["--standalone", "--nproc-per-node", str(processes)]
