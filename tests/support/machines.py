"""Emulated machines: network namespaces joined by a switch.

Each machine has one cable, a veth pair, to a bridge in its own namespace. The real network is not
touched, and everything is removed at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def find_hindrance() -> str | None:
    """The reason why this system cannot emulate machines, as a sentence; ``None`` if it can."""
    if not sys.platform.startswith("linux"):
        return "Network namespaces need Linux."
    if os.geteuid() != 0:
        return "Network namespaces need root."
    return None if shutil.which("ip") else "The command ip is missing; install iproute2."


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
