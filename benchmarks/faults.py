"""Faults injected into a small training: lost processes, machines, cables and rendezvous hosts.

One process first trains a run undisturbed. Then several processes train the same run, while workers
are killed and stopped, cables are cut and the rendezvous host ends. The remaining workers must end
in time, with a message that names what was lost. Another number of processes then resumes the run,
and the digest of the weights after each epoch must equal the undisturbed run's.

The time limit applies to workers. A torchrun that is cut off from its rendezvous retries until TCP
gives up (net.ipv4.tcp_retries2, about 15 minutes); the table says where one is still running.

Machines are network namespaces (machines.py), which need Linux and root. Without them, these parts
are left out.

    python benchmarks/faults.py --kills 25 --json faults.json
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from lamina.training.rendezvous import TIMEOUT_SECONDS
from machines import (
    Launched,
    Machine,
    alone,
    among,
    find_hindrance,
    is_running,
    join_machines,
    read_status,
    wait_until,
)
from processes import append_row
from rich.console import Console
from rich.table import Table

from lamina.runs.loading import load_run

LANES = 4
BATCH_SIZE = 200
STEPS = 40
"""Steps per epoch: ``shapes`` has 8,000 training images."""
FEWEST_EPOCHS = 26
"""The training must last until the fault."""
IN_TIME = TIMEOUT_SECONDS + 15.0
"""Time limit for the other workers: the timeout, and the time to find out which is lost."""
PATIENCE = 40.0
"""Time limit for torchrun to end after its workers; it kills what remains after 30 seconds."""
EPOCH = '"event": "epoch"'

MODULE = '''"""A small net that kills its process in the forward pass that KILL names."""

import os
import signal
import threading

from torch import nn


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * 32 * 32, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(64, 10),
        )
        self.passes = 0

    def forward(self, images):
        if self.training:
            self.passes += 1
            rank, _, rest = os.environ.get("KILL", "-1:0:0").partition(":")
            passes, _, milliseconds = rest.partition(":")
            if os.environ.get("RANK") == rank and self.passes == int(passes):
                seconds = float(milliseconds) / 1000
                kill = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
                kill.daemon = True
                kill.start()
        return self.layers(images)
'''


@dataclass(frozen=True)
class Row:
    """One fault and its result.

    Attributes:
        what: the fault, or how the run was resumed.
        expected: the expected result.
        found: the actual result.
        is_as_expected: whether they agree.
        seconds: time until all workers had ended, or of the whole part.
    """

    what: str
    expected: str
    found: str
    is_as_expected: bool
    seconds: float


@dataclass(frozen=True)
class Scene:
    """The folder of the trainings, and the digests that they must reach."""

    folder: Path
    epochs: int
    digests: tuple[str, ...]

    def words(self, name: str) -> list[str]:
        """The command that trains a run."""
        options = [
            "--data",
            "shapes",
            "--epochs",
            str(self.epochs),
            "--batch-size",
            str(BATCH_SIZE),
        ]
        return [
            "-m",
            "lamina",
            "train",
            "counted.py",
            *options,
            "--lanes",
            str(LANES),
            "--json",
            "--name",
            name,
        ]

    def resume(self, name: str) -> list[str]:
        """The command that resumes it."""
        return ["-m", "lamina", "resume", f"runs/{name}", "--net", "counted.py", "--json"]

    def read_digests(self, name: str) -> tuple[str, ...]:
        """The digests of the weights after each epoch."""
        return tuple(
            str(row["weights"])
            for row in load_run(self.folder / "runs" / name).folder.history.epochs()
        )

    def log(self, name: str) -> Path:
        """A new file for the output of torchrun."""
        return self.folder / f"{name}-{len(list(self.folder.glob('*.log')))}.log"

    def compare(self, name: str) -> str:
        """Compare a run's digests with the undisturbed ones."""
        found = self.read_digests(name)
        if found == self.digests:
            return f"the same digests in all {self.epochs} epochs"
        different = [
            epoch
            for epoch, pair in enumerate(zip(found, self.digests, strict=False), 1)
            if len(set(pair)) > 1
        ]
        return (
            f"{len(found)} of {self.epochs} epochs, first difference in epoch"
            f" {min(different, default=None)}"
        )

    def finish(self, name: str, options: list[str], machine: Machine | None = None) -> str:
        """Resume a run to its end, and compare its digests."""
        with Launched(self.resume(name), self.log(name), options, machine) as launched:
            status = launched.wait(300)
        return (
            self.compare(name)
            if status == 0
            else f"resuming ended with {status}: {launched.text()[-500:]}"
        )

    @property
    def same(self) -> str:
        """The expected result of ``compare``."""
        return f"the same digests in all {self.epochs} epochs"


def find_message(launched: Launched) -> str:
    """Find lamina's message about a lost process."""
    found = re.findall(
        r"^(?:\[[^\]]*\]:)?lamina(?: \(rank \d+\))?: .*$", launched.text(), flags=re.MULTILINE
    )
    return found[-1] if found else "no message"


def find_statuses(launched: Launched) -> dict[int, int]:
    """The exit statuses of the workers that torchrun reports, by rank."""
    found = re.findall(
        r"rank\s*: (\d+) \(local_rank: \d+\)\s+exitcode\s*: (-?\d+)", launched.text()
    )
    return {int(rank): int(status) for rank, status in found}


def kill_again_and_again(scene: Scene, kills: int, seed: int) -> Iterator[Row]:
    """Kill a random worker at a random moment, and resume with another number of processes."""
    chance = random.Random(seed)
    began, processes, done = time.monotonic(), chance.randint(1, LANES), list[int]()
    words = scene.words("killed")
    for _ in range(kills):
        rank = chance.randrange(processes)
        lanes = (rank + 1) * LANES // processes - rank * LANES // processes
        moment = f"{rank}:{chance.randint(1, STEPS * lanes)}:{chance.uniform(0, 40):.1f}"
        with Launched(
            words, scene.log("killed"), alone(processes), variables={"KILL": moment}
        ) as launched:
            status = launched.wait(TIMEOUT_SECONDS + 60)
        if status != 1 or find_statuses(launched).get(rank) != -signal.SIGKILL:
            yield Row(
                "SIGKILL of a worker",
                "torchrun ends with 1",
                f"kill {len(done) + 1} ({moment} of {processes}): {status}, "
                f"{launched.text()[-500:]}",
                False,
                time.monotonic() - began,
            )
            return
        done.append(processes)
        if (scene.folder / "runs/killed/state.safetensors").exists():
            words = scene.resume("killed")
        else:  # before the first checkpoint there is nothing to resume
            words = scene.words("killed")
            shutil.rmtree(scene.folder / "runs/killed", ignore_errors=True)
        processes = chance.choice([count for count in range(1, LANES + 1) if count != processes])
    found = scene.finish("killed", alone(processes))
    counts = ", ".join(f"{done.count(count)} of {count}" for count in range(1, LANES + 1))
    what = f"{kills} SIGKILLs of random workers at random steps (processes: {counts})"
    yield Row(what, scene.same, found, found == scene.same, time.monotonic() - began)


def stop_a_worker(scene: Scene) -> Iterator[Row]:
    """Stop one of three workers: it no longer responds, but keeps its connections."""
    with Launched(scene.words("stopped"), scene.log("stopped"), alone(3)) as launched:
        launched.wait_for(EPOCH, times=2)
        workers = launched.workers()
        os.kill(workers[1], signal.SIGSTOP)
        began = time.monotonic()
        others = [workers[0], workers[2]]
        seconds = wait_until(lambda: not any(map(is_running, others)), IN_TIME + 60)
        launched.wait(60)
    found = (
        f"{'not' if seconds is None else f'{seconds:.0f} s'}, {find_statuses(launched)}:"
        f" {find_message(launched)}"
    )
    # torchrun ends the others by SIGTERM as soon as one has ended.
    ends = {find_statuses(launched).get(rank) for rank in (0, 2)}
    is_expected = seconds is not None and seconds <= IN_TIME and 75 in ends <= {75, -signal.SIGTERM}
    yield Row(
        "SIGSTOP of rank 1 of 3",
        f"the others end within {IN_TIME:.0f} s, the first with 75, and name rank 1",
        found,
        is_expected and "from rank 1 of 3" in launched.text(),
        time.monotonic() - began,
    )
    found = scene.finish("stopped", alone(2))
    yield Row("resumed by 2", scene.same, found, found == scene.same, time.monotonic() - began)


def on_two_machines(
    scene: Scene,
    name: str,
    what: str,
    break_it: Callable[[Machine, Launched], None],
    names: dict[int, str],
) -> Iterator[Row]:
    """Train on two machines, inject a fault, check how the remaining workers end, and resume.

    ``break_it`` receives the second machine and the torchrun of the first. ``names`` maps each
    remaining machine to a part of its expected message.
    """
    with join_machines(2) as machines, ExitStack() as stack:
        launched = [
            stack.enter_context(
                Launched(
                    scene.words(name), scene.log(name), among(2, machines[0], number == 0), machine
                )
            )
            for number, machine in enumerate(machines)
        ]
        launched[0].wait_for(EPOCH, times=2)
        workers = [next(iter(each.workers().values())) for each in launched]
        break_it(machines[1], launched[0])
        began = time.monotonic()
        seconds: dict[int, float] = {}
        statuses: dict[int, int | None] = {}
        while len(seconds) < len(names) and time.monotonic() < began + 3 * IN_TIME:
            for each in names:
                if each not in seconds and not is_running(workers[each]):
                    seconds[each], statuses[each] = (
                        time.monotonic() - began,
                        read_status(workers[each]),
                    )
            # read the status before torchrun, which may not report it, reaps the worker
            time.sleep(0.005)
        for each, words in names.items():
            took, message = seconds.get(each), find_message(launched[each])
            end = "did not end" if took is None else f"{took:.0f} s"
            has_ended = launched[each].wait(PATIENCE) is not None
            status = find_statuses(launched[each]).get(each, statuses.get(each))
            waits = "" if has_ended else f" (torchrun there has not ended {PATIENCE:.0f} s later)"
            yield Row(
                f"{what}: worker of machine {each + 1}",
                f"ends within {IN_TIME:.0f} s with 75 and “{words}”",
                f"{end} with {status}{waits}: {message}",
                took is not None and took <= IN_TIME and status == 75 and words in message,
                time.monotonic() - began,
            )
        for one in launched:
            one.end()
        began, last = time.monotonic(), max(names)
        found = scene.finish(name, alone(1), machines[last])
        what = f"resumed by machine {last + 1} alone"
        yield Row(what, scene.same, found, found == scene.same, time.monotonic() - began)


def kill_one_of_two_agents(scene: Scene, killed: int) -> Iterator[Row]:
    """Kill a worker of one of two agents with ``--max-restarts``: each agent counts its own."""
    name = f"agent-{killed + 1}"
    with ExitStack() as stack:
        launched = [
            stack.enter_context(
                Launched(
                    scene.words(name),
                    scene.log(name),
                    [
                        *among(2, None, number == 0),
                        "--max-restarts",
                        "3",
                        "--local-addr",
                        "127.0.0.1",
                    ],
                )
            )
            for number in range(2)
        ]
        leader = wait_for_any(launched, EPOCH, 2)
        began = time.monotonic()
        victim = leader if killed == 0 else 1 - leader
        for process in launched[victim].workers().values():
            os.kill(process, signal.SIGKILL)
        statuses = [
            each.wait(max(1.0, began + 5 * IN_TIME - time.monotonic())) for each in launched
        ]
        messages = {find_message(each) for each in launched}
    is_expected = statuses == [0, 0]
    found = (
        scene.compare(name)
        if is_expected
        else f"torchrun ended with {statuses}: {' '.join(sorted(messages))}"
    )
    yield Row(
        f"two agents with --max-restarts 3, worker of rank {killed} killed",
        scene.same,
        found,
        found == scene.same,
        time.monotonic() - began,
    )


def wait_for_any(launched: list[Launched], text: str, times: int) -> int:
    """Wait until a torchrun has printed a text ``times`` times; return its number, the leader's."""

    def counts() -> list[int]:
        return [each.text().count(text) for each in launched]

    if wait_until(lambda: max(counts()) >= times, 120) is None:
        raise OSError(f"expected {text!r}, got:\n{launched[0].text()[-2000:]}")
    return counts().index(max(counts()))


def train_undisturbed(folder: Path, epochs: int) -> Scene:
    """Train the run that all others are compared with."""
    (folder / "counted.py").write_text(MODULE, encoding="utf-8")
    scene = Scene(folder, epochs, ())
    done = subprocess.run(
        [sys.executable, *scene.words("undisturbed")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise ValueError(f"the undisturbed training failed:\n{done.stderr[-2000:]}")
    return Scene(folder, epochs, scene.read_digests("undisturbed"))


def main(
    kills: int = 25,
    seed: int = 0,
    parts: str = "kills,stop,cut,host,agents",
    logs: Path | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Inject faults and compare the results with the expected ones; exit with 1 if any differs.

    Args:
        kills: number of workers to kill, one after another.
        seed: seed for which worker is killed, and when.
        parts: kills, stop, cut, host, agents, separated by commas.
        logs: new folder for the runs and all output.
        json_path: file for the results, one JSON object per line.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    console = Console(width=160)
    makers: dict[str, Callable[[Scene], Iterator[Row]]] = {
        "kills": lambda scene: kill_again_and_again(scene, kills, seed),
        "stop": stop_a_worker,
        "cut": lambda scene: on_two_machines(
            scene,
            "cut",
            "cable cut",
            lambda machine, _: machine.cut(),
            {0: "from rank 1 of 2", 1: "rendezvous host at 10.77.0.1"},
        ),
        "host": lambda scene: on_two_machines(
            scene,
            "host",
            "rendezvous host killed",
            lambda _, launched: launched.end(),
            {1: "rendezvous host at 10.77.0.1"},
        ),
        "agents": lambda scene: (
            row for killed in (1, 0) for row in kill_one_of_two_agents(scene, killed)
        ),
    }
    table = Table("what", "expected", "found", "seconds")
    is_all_expected = True
    json_path = json_path and json_path.resolve()
    with ExitStack() as stack:
        if logs is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            logs.mkdir(parents=True)
            folder = logs.resolve()
        stack.callback(os.chdir, Path.cwd())
        os.chdir(folder)
        console.print("training the undisturbed run")
        scene = train_undisturbed(folder, max(kills + 1, FEWEST_EPOCHS))
        for part in parts.split(","):
            if part in ("cut", "host") and (hindrance := find_hindrance()):
                console.print(f"{part} left out: {hindrance}")
                continue
            for row in makers[part](scene):
                console.print(
                    f"{'as expected' if row.is_as_expected else 'NOT as expected'}: {row.what}:"
                    f" {row.found}"
                )
                is_all_expected &= row.is_as_expected
                table.add_row(row.what, row.expected, row.found, f"{row.seconds:.0f}")
                if json_path is not None:
                    append_row(json_path, row)
    console.print(table)
    sys.exit(0 if is_all_expected else 1)


if __name__ == "__main__":
    tyro.cli(main)
