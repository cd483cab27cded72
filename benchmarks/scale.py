r"""Seconds per step with several processes, and a cost model that predicts a step of four.

A step of N processes takes

    cores(N) · (c0 + c1 / N) + 2 (N - 1) α + 8 P (N - 1) / (N β)

- c0: the work of each process that does not depend on its part of the batch (optimizer, Python)
- c1: the work on the whole batch
- P: the number of weights; each crosses the link twice, with 4 bytes
- α: the delay of a message
- β: the bytes per second that a link carries
- cores(N): the number of processes that share a core of this machine; 1 for N machines

c0 and c1 are fitted to one and two processes, without their exchange; α and β to two processes that
exchange a short and a long vector. A second fit uses one process with the whole batch and with half
of it, so it does not include the effect of two processes sharing memory; the tables for N separate
machines use it. The number of lanes is the largest N. All processes have one thread.

With --links, the processes also run on emulated machines (machines.py), whose cables tc's tbf slows
down. Their α and β are measured again. The constants of the nets stay those of loopback, and the
machines still share this machine's cores. Delay is only computed: netem, which would add it, is
missing in some kernels.

    python benchmarks/scale.py --nets mlp,cnn,cnn-s,cnn-l@32 --steps 4 --links 1,10 \
        --json scale.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from machines import Launched, Machine, alone, among, find_hindrance, join_machines
from processes import append_row, read_entry
from rich.console import Console
from rich.table import Table

from lamina import Images, Step, Training, load_data
from lamina.nets import Net
from lamina.training import group
from lamina.training.group import join_group
from lamina.zoo import load_net

MACHINES = (2, 4, 8, 16, 32, 64, 128, 256)
SHORT, LONG = 1_000, 4_000_000
MOST_SECONDS = 300.0
"""Time limit of one torchrun."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Median seconds of ``steps`` steps; net ``exchange`` is the exchange of ``weights`` numbers.

    ``gigabits`` is the rate of each machine's cable, 0 on loopback.
    """

    net: str
    processes: int
    threads: int
    batch_size: int
    weights: int
    seconds: float
    steps: int
    gigabits: float = 0.0


@dataclasses.dataclass(frozen=True)
class Link:
    """The connection between processes."""

    delay_seconds: float
    bytes_per_second: float

    def seconds(self, weights: int, processes: int) -> float:
        """Seconds of a step's exchange."""
        return (processes - 1) * (
            2 * self.delay_seconds + 8 * weights / processes / self.bytes_per_second
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """The constants of the cost model for a net."""

    fixed_seconds: float
    batch_seconds: float
    weights: int

    def step_seconds(self, processes: int, link: Link, cores: int = 10**9) -> float:
        """Predicted seconds of a step."""
        share = max(1.0, processes / cores)
        return share * (self.fixed_seconds + self.batch_seconds / processes) + link.seconds(
            self.weights, processes
        )


def time_training(net_name: str, batch_size: int, lanes: int, steps: int) -> Row:
    """Time the steps of a training in torchrun's group."""
    name, recipe = read_entry(net_name)
    recipe = dataclasses.replace(
        recipe,
        epochs=2,
        device="cpu",
        batch_size=batch_size,
        lanes=lanes,
        start_size_fraction=0.0,
        precision="fp32",
    )
    images = Images.from_arrays(
        np.random.default_rng(0).integers(0, 256, (batch_size * (steps + 3), 32, 32, 3), np.uint8),
        np.arange(batch_size * (steps + 3)) % 10,
    )
    net: Net = load_net(name)
    training = Training(net, images, recipe, steps_per_record=1)
    ended = []
    for event in training:
        if not isinstance(event, Step):
            break
        ended.append(time.perf_counter())
    spent = np.diff(ended)[1:]
    weights = sum(weight.numel() for weight in training.model.parameters())
    threads = torch.get_num_threads()
    return Row(
        net_name, group.size(), threads, batch_size, weights, statistics.median(spent), len(spent)
    )


def time_exchange(length: int) -> Row:
    """Time the exchange of a vector."""
    vector, spent = torch.ones(1, length), []
    for _ in range(15):
        began = time.perf_counter()
        received = group.exchange(vector, [1] * group.size())
        group.collect(received.sum(0), length)
        spent.append(time.perf_counter() - began)
    return Row("exchange", group.size(), 1, 0, length, statistics.median(spent[3:]), 12)


PAPER = {
    "1 Gbit/s, 0.1 ms": Link(1e-4, 1.25e8),
    "10 Gbit/s, 0.1 ms": Link(1e-4, 1.25e9),
    "10 Gbit/s, 1 ms": Link(1e-3, 1.25e9),
}


def work(tasks: Sequence[str], lanes: int, steps: int) -> None:
    """Time nets (``NET@IMAGES``) or the exchange of both vectors under torchrun; print rows."""
    with join_group():
        for task in tasks:
            if task == "exchange":
                rows = [time_exchange(length) for length in (SHORT, LONG)]
            else:
                net, _, batch_size = task.partition("@")
                rows = [time_training(net, int(batch_size), lanes, steps)]
            for row in rows if group.is_leader() else ():
                print("ROW", json.dumps(dataclasses.asdict(row)), flush=True)


def run(
    tasks: Sequence[str],
    processes: int,
    threads: int,
    lanes: int,
    steps: int,
    machines: Sequence[Machine] = (),
    gigabits: float = 0.0,
) -> list[Row]:
    """Time tasks with torchrun: several processes here, or one on each of several machines."""
    words = [__file__, "work", ",".join(tasks), str(lanes), str(steps)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        launched = []
        for number, machine in enumerate(machines[:processes] or (None,)):
            options = (
                alone(processes) if machine is None else among(processes, machines[0], number == 0)
            )
            log = Path(folder) / f"{number}.log"
            launched.append(stack.enter_context(Launched(words, log, options, machine, threads)))
        statuses = [each.wait(MOST_SECONDS) for each in launched]
        printed = "\n".join(each.text() for each in launched)
    found = [line.partition(" ")[2] for line in printed.splitlines() if line.startswith("ROW ")]
    if any(statuses) or None in statuses or not found:
        raise ValueError(
            f"expected rows of {tasks} from {processes} processes, got exit statuses"
            f" {statuses}:\n{printed[-2000:]}"
        )
    return [dataclasses.replace(Row(**json.loads(line)), gigabits=gigabits) for line in found]


def measure_once(
    sizes: dict[str, int], largest: int, steps: int, links: Sequence[float]
) -> Iterator[Row]:
    """Take all measurements once."""
    whole = [f"{net}@{size}" for net, size in sizes.items()]
    yield from run(whole, 1, 2, largest, steps)
    yield from run(whole, 1, 1, largest, steps)
    # One process with half of the batch has as many lanes as one of two processes.
    yield from run([f"{net}@{size // 2}" for net, size in sizes.items()], 1, 1, largest // 2, steps)
    yield from run(["exchange", *whole], 2, 1, largest, steps)
    yield from run(whole, largest, 1, largest, steps)
    for gigabits in links:
        with join_machines(largest) as machines:
            for machine in machines:
                machine.limit(gigabits)
            for processes, tasks in ((2, ["exchange", *whole]), (largest, whole)):
                yield from run(tasks, processes, 1, largest, steps, machines, gigabits)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The rows of all turns, and their medians."""

    rows: Sequence[Row]

    def seconds(
        self, net: str, size: int, processes: int, threads: int = 1, gigabits: float = 0.0
    ) -> float:
        """Median seconds of a net's step, or of the exchange of ``size`` numbers."""
        return statistics.median(
            row.seconds
            for row in self.rows
            if (row.net, row.processes, row.threads, row.gigabits)
            == (net, processes, threads, gigabits)
            and size == (row.weights if net == "exchange" else row.batch_size)
        )

    def link(self, gigabits: float = 0.0) -> Link:
        """α and β from the exchanges of two processes."""
        short, long = (
            self.seconds("exchange", length, 2, gigabits=gigabits) for length in (SHORT, LONG)
        )
        return Link(short / 2, 8 * (LONG - SHORT) / 2 / (long - short))

    def costs(self, net: str, size: int) -> tuple[Cost, Cost]:
        """Fit a net's constants to one and two processes, and to the whole batch and half of it."""
        weights = next(row.weights for row in self.rows if row.net == net)
        whole = self.seconds(net, size, 1)
        two = self.seconds(net, size, 2) - self.link().seconds(weights, 2)
        half = self.seconds(net, size // 2, 1)
        # Noise must not make a constant negative.
        shared = [min(whole, max(0.0, 2 * (whole - part))) for part in (two, half)]
        return Cost(whole - shared[0], shared[0], weights), Cost(
            whole - shared[1], shared[1], weights
        )


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def main(
    nets: str = "mlp,cnn,cnn-s",
    batch_size: int = 500,
    largest: int = 4,
    steps: int = 6,
    turns: int = 3,
    cores: int | None = None,
    links: str = "",
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure, fit, predict and compare.

    Args:
        nets: nets of the zoo, separated by commas; NET@IMAGES sets the batch size.
        batch_size: images per step, of all processes together.
        largest: number of processes to predict, and number of lanes.
        steps: number of timed steps of each training.
        turns: number of measurements; the results are medians.
        cores: cores of this machine; by default the system's number.
        links: rates of emulated cables in Gbit/s, separated by commas, such as 1,10; needs Linux
            and root.
        json_path: file for the results, one JSON object per line.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    load_data("shapes")
    console = Console(width=160)
    cores = cores or os.cpu_count() or 1
    gigabits = [float(word) for word in links.split(",") if word]
    if gigabits and (hindrance := find_hindrance()):
        console.print(f"links left out: {hindrance}")
        gigabits = []
    sizes = {
        net: int(size or batch_size)
        for net, _, size in (word.partition("@") for word in nets.split(","))
    }
    rows: list[Row] = []
    for turn in range(1, turns + 1):
        began = time.monotonic()
        for row in measure_once(sizes, largest, steps, gigabits):
            rows.append(row)
            if json_path is not None:
                append_row(json_path, row)
        console.print(f"turn {turn} of {turns}: {time.monotonic() - began:.0f} s")

    measured = Measured(rows)
    loopback = measured.link()
    console.print(describe(loopback, "on loopback"))
    table = Table(
        "net",
        "batch",
        "1 × 2 threads",
        "1 × 1",
        "2 × 1",
        "speedup of 2 × 1",
        f"{largest} × 1",
        "predicted",
        "error",
        "from half",
        "error",
    )
    for net, size in sizes.items():
        two_threads = measured.seconds(net, size, 1, threads=2)
        whole, two, many = (measured.seconds(net, size, processes) for processes in (1, 2, largest))
        guesses = [
            cost.step_seconds(largest, loopback, cores) for cost in measured.costs(net, size)
        ]
        errors = [(milliseconds(guess), f"{guess / many - 1:+.0%}") for guess in guesses]
        table.add_row(
            net,
            str(size),
            milliseconds(two_threads),
            milliseconds(whole),
            milliseconds(two),
            f"{two_threads / two:.2f}",
            milliseconds(many),
            *errors[0],
            *errors[1],
        )
    console.print(table)
    for rate in gigabits:
        link = measured.link(rate)
        console.print(describe(link, f"through cables of {rate:g} Gbit/s"))
        table = Table(
            "net",
            "batch",
            "2 machines",
            "predicted",
            "error",
            f"{largest} machines",
            "predicted",
            "error",
        )
        for net, size in sizes.items():
            cost, _ = measured.costs(net, size)
            cells = []
            for processes in (2, largest):
                seconds, guess = (
                    measured.seconds(net, size, processes, gigabits=rate),
                    cost.step_seconds(processes, link, cores),
                )
                cells += [milliseconds(seconds), milliseconds(guess), f"{guess / seconds - 1:+.0%}"]
            table.add_row(net, str(size), *cells)
        console.print(table)
    for name, link in PAPER.items():
        paper = Table(
            "net",
            *(f"{machines}" for machines in MACHINES),
            title=f"predicted speedup over one machine, {name}",
        )
        for net, size in sizes.items():
            _, cost = measured.costs(net, size)
            one = cost.step_seconds(1, link)
            paper.add_row(
                net, *(f"{one / cost.step_seconds(machines, link):.1f}" for machines in MACHINES)
            )
        console.print(paper)


def describe(link: Link, where: str) -> str:
    """Format a link's constants."""
    return f"α {1e6 * link.delay_seconds:.0f} µs, β {link.bytes_per_second / 1e9:.2f} GB/s {where}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2].split(","), *map(int, sys.argv[3:5]))
    else:
        tyro.cli(main)
