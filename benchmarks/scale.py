"""What several processes gain: seconds a step by torchrun, beside a cost model that predicts those of N = 4.

A step of N processes takes

    cores(N) · (c0 + c1 / N) + 2 (N - 1) α + 8 P (N - 1) / (N β)

where c0 is what each process does whatever its share of the batch (optimizer, Python), c1 the work on the whole batch,
P the number of weights, α the delay of a message and β the bytes that a link carries in a second; each weight crosses
the link twice, with 4 bytes. cores(N) is how many processes share a core of this machine: 1 for N machines.

c0 and c1 come from one process at the whole batch and at half of it; α and β from two processes that exchange a short
and a long vector. There are as many lanes as the largest N. All processes have one thread.

    python benchmarks/scale.py --nets mlp,cnn,cnn-s --batch-size 500 --json scale.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from processes import append_row, read_entry
from rich.console import Console
from rich.table import Table

from lamina import Images, Step, Training, load_data
from lamina.nets import Net
from lamina.training.group import Group, join_group
from lamina.zoo import load_net

MACHINES = (2, 4, 8, 16, 32, 64, 128, 256)
LINKS = {"1 Gbit/s, 0.1 ms": (1e-4, 1.25e8), "10 Gbit/s, 0.1 ms": (1e-4, 1.25e9), "10 Gbit/s, 1 ms": (1e-3, 1.25e9)}
SHORT, LONG = 1_000, 4_000_000


@dataclasses.dataclass(frozen=True)
class Row:
    """Seconds of a step, the median of ``steps``; ``net`` is ``exchange`` for that of a vector of ``weights``."""

    net: str
    processes: int
    threads: int
    batch_size: int
    weights: int
    seconds: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """The constants of the model for a net."""

    fixed_seconds: float
    batch_seconds: float
    weights: int

    def step_seconds(self, processes: int, delay_seconds: float, bytes_per_second: float, cores: int = 10**9) -> float:
        """A step of so many processes."""
        share = max(1.0, processes / cores)
        work = share * (self.fixed_seconds + self.batch_seconds / processes)
        exchanged = 8 * self.weights * (processes - 1) / processes / bytes_per_second
        return work + 2 * (processes - 1) * delay_seconds + exchanged


def time_training(net_name: str, batch_size: int, lanes: int, steps: int, group: Group) -> Row:
    """The steps of a training, in the group that torchrun made."""
    name, recipe = read_entry(net_name)
    recipe = dataclasses.replace(
        recipe, epochs=2, batch_size=batch_size, lanes=lanes, grow_from_fraction=0.0, precision="fp32"
    )
    images = Images.from_arrays(
        np.random.default_rng(0).integers(0, 256, (batch_size * (steps + 3), 32, 32, 3), np.uint8),
        np.arange(batch_size * (steps + 3)) % 10,
    )
    net: Net = load_net(name)
    training = Training(net, images, recipe, device="cpu", steps_per_record=1, group=group)
    ended = []
    for event in training:
        if not isinstance(event, Step):
            break
        ended.append(time.perf_counter())
    spent = np.diff(ended)[1:]
    weights = sum(weight.numel() for weight in training.model.parameters())
    threads = torch.get_num_threads()
    return Row(net_name, group.size, threads, batch_size, weights, statistics.median(spent), len(spent))


def time_exchange(length: int, group: Group) -> Row:
    """The exchange of a vector: parts to and fro."""
    vector, spent = torch.ones(1, length), []
    for _ in range(30):
        began = time.perf_counter()
        received = group.exchange(vector, [1] * group.size)
        group.join(received.sum(0), length)
        spent.append(time.perf_counter() - began)
    return Row("exchange", group.size, 1, 0, length, statistics.median(spent[5:]), 25)


def work(net: str, batch_size: int, lanes: int, steps: int) -> None:
    """What torchrun starts: time a net, or the exchange of both vectors, and print rows by the leader."""
    with join_group() as group:
        if net == "exchange":
            rows = [time_exchange(length, group) for length in (SHORT, LONG)]
        else:
            rows = [time_training(net, batch_size, lanes, steps, group)]
        if group.is_leader:
            for row in rows:
                print("ROW", json.dumps(dataclasses.asdict(row)), flush=True)


def run(processes: int, threads: int, net: str, batch_size: int, lanes: int, steps: int) -> list[Row]:
    """Time a net with so many processes of torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = ["work", net, str(batch_size), str(lanes), str(steps)]
    done = subprocess.run(
        [*launcher, __file__, *words],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    found = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode or not found:
        raise ValueError(f"expected rows of {net} by {processes} processes, got:\n{done.stderr[-2000:]}")
    return [Row(**json.loads(line)) for line in found]


def main(
    nets: str = "mlp,cnn,cnn-s",
    batch_size: int = 500,
    largest: int = 4,
    steps: int = 12,
    turns: int = 3,
    cores: int | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measure, fit, predict and compare.

    Args:
        nets: of the zoo, commas between.
        batch_size: images in a step, of all processes.
        largest: number of processes that is predicted; the lanes of each batch.
        steps: timed in each training.
        turns: how often each is measured; the medians count.
        cores: of this machine; by default what the system says.
        json_path: where to write every row, one JSON object a line.
    """
    load_data("shapes")
    cores = cores or os.cpu_count() or 1
    rows: list[Row] = []
    half = batch_size // 2
    for _ in range(turns):
        rows += run(2, 1, "exchange", 0, 1, 0)
        for net in nets.split(","):
            for processes, threads, size in ((1, 2, batch_size), (1, 1, batch_size), (1, 1, half), (2, 1, batch_size)):
                # One process and its half of the batch have the lanes that it would have among two.
                lanes = largest // 2 if size == half else largest
                rows += run(processes, threads, net, size, lanes, steps)
            rows += run(largest, 1, net, batch_size, largest, steps)

    def median(net: str, processes: int, threads: int, size: int, weights: int | None = None) -> float:
        return statistics.median(
            row.seconds
            for row in rows
            if (row.net, row.processes, row.threads, row.batch_size) == (net, processes, threads, size)
            and weights in (None, row.weights)
        )

    short, long = (median("exchange", 2, 1, 0, length) for length in (SHORT, LONG))
    delay = short / 2
    bytes_per_second = 8 * LONG / 2 / (long - short)
    console = Console(width=160)
    console.print(f"α {1e6 * delay:.0f} µs, β {bytes_per_second / 1e9:.2f} GB/s on loopback")
    table = Table("net", "1 × 2 threads", "1 × 1", "2 × 1", "gain of 2 × 1", f"{largest} × 1", "predicted", "error")
    costs = {}
    for net in nets.split(","):
        whole, part = median(net, 1, 1, batch_size), median(net, 1, 1, half)
        weights = next(row.weights for row in rows if row.net == net)
        batch_seconds = min(whole, 2 * (whole - part))  # neither constant is negative, whatever the noise
        costs[net] = cost = Cost(whole - batch_seconds, batch_seconds, weights)
        two_threads, two, many = (
            median(net, processes, threads, batch_size) for processes, threads in ((1, 2), (2, 1), (largest, 1))
        )
        predicted = cost.step_seconds(largest, delay, bytes_per_second, cores)
        cells = [two_threads, whole, two, many, predicted]
        one, alone, both, all_of_them, guess = (f"{1000 * cell:.1f} ms" for cell in cells)
        table.add_row(
            net, one, alone, both, f"{two_threads / two:.2f}", all_of_them, guess, f"{predicted / many - 1:+.0%}"
        )
    console.print(table)
    for link, (link_delay, link_bytes) in LINKS.items():
        paper = Table("net", *(f"{machines}" for machines in MACHINES), title=f"times as fast as one machine, {link}")
        for net, cost in costs.items():
            alone = cost.step_seconds(1, link_delay, link_bytes)
            paper.add_row(
                net, *(f"{alone / cost.step_seconds(machines, link_delay, link_bytes):.1f}" for machines in MACHINES)
            )
        console.print(paper)
    if json_path is not None:
        for row in rows:
            append_row(json_path, row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        tyro.cli(main)
