"""Processes of torchrun that train together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore, Store

from lamina import Epoch, load_data, start_run
from lamina.errors import GroupError
from lamina.runs.stored import load_run
from lamina.training.group import ALONE, Group
from lamina.training.rendezvous import count_start
from support.commands import run_lamina

SCRIPT = Path(__file__).parent / "group_script.py"
TRAIN = ("train", "mlp", "--data", "shapes", "--epochs", "4", "--batch-size", "100", "--lanes", "4")


def torchrun(processes: int, *words: str | Path, restarts: int = 0) -> list[str]:
    launcher = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    )
    return [*launcher, "--max-restarts", str(restarts), *map(str, words)]


def run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


def test_one_process_agrees_with_itself():
    assert ALONE.is_leader
    assert ALONE.lead(lambda: b"x") == b"x"
    assert ALONE.gather(b"x") == [b"x"]
    assert (ALONE.any(True), ALONE.any(False), ALONE.find_deviating("x")) == (True, False, "")


def start(store: Store, size: int) -> list[int]:
    """What processes, here threads, agree on that start together."""
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(lambda rank: count_start(store, rank, size, 30.0), range(size)))


def test_processes_agree_on_which_start_it_is_though_the_store_keeps_what_earlier_ones_wrote():
    store = HashStore()
    assert start(store, 3) == [1, 1, 1]
    assert start(store, 2) == [2, 2]
    store.set("came/1", "a process that was killed before it had an answer")
    assert start(store, 4) == [3, 3, 3, 3]
    assert start(store, 1) == [4]


def test_a_process_that_does_not_come_to_the_start_is_named():
    expected = r"^Ranks 1, 2 of 3 processes did not start within 0.1 seconds. Resume the run"
    with pytest.raises(GroupError, match=expected):
        count_start(HashStore(), 0, 3, 0.1)
    with pytest.raises(GroupError, match="Rank 0 of 3 processes did not start"):
        count_start(HashStore(), 2, 3, 0.1)


@pytest.mark.parametrize(("count", "size"), [(4, 3), (1, 1), (0, 4), (7, 7)])
def test_all_is_dealt_once(count, size):
    dealt = [thing for rank in range(size) for thing in Group(rank, size).deal(count)]
    assert dealt == list(range(count))


@pytest.mark.slow
def test_many_recipes_and_four_reports_are_the_same_for_any_number_of_processes():
    together = run(torchrun(4, SCRIPT))
    assert together.returncode == 0, together.stderr
    four, three, two, alone = map(json.loads, together.stdout.splitlines()[-4:])
    assert len(alone) == 26
    assert two == alone
    assert three == alone
    assert four == alone


def digests(run: Path) -> list[str]:
    return [row["weights"] for row in load_run(run).folder.history.epochs()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The run of TRAIN by one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run_lamina(*TRAIN, "--name", "alone", "--runs-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def find_workers(launcher: int) -> dict[int, int]:
    """The processes of torchrun's workers, by rank, once they have started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{launcher}\n" in (folder / "status").read_text():
                environment = (folder / "environ").read_bytes()
                if rank := re.search(rb"(?:^|\0)RANK=(\d+)\0", environment):
                    found[int(rank[1])] = int(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_training_that_others_resume_ends_with_the_same_weights(workplace, undisturbed):
    begun = start_run(
        "mlp", load_data("shapes"), load_run(undisturbed).record.recipe, name="begun", device="cpu"
    )
    next(event for event in begun.iter_train() if isinstance(event, Epoch))
    resumed = run(torchrun(3, "-m", "lamina", "resume", "runs/begun"))
    assert resumed.returncode == 0, resumed.stderr
    assert "group: 3 processes of 1 thread each; each batch has 4 lanes" in resumed.stderr
    assert digests(Path("runs/begun")) == digests(undisturbed)
    reports = [load_run(path).report for path in (undisturbed, Path("runs/begun"))]
    assert reports[0].to_json() | {"seconds": 0} == reports[1].to_json() | {"seconds": 0}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_a_killed_worker_is_named_and_torchrun_starts_the_training_again(workplace, undisturbed):
    with subprocess.Popen(
        torchrun(2, "-m", "lamina", *TRAIN, "--name", "again", "--json", restarts=1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert json.loads(process.stdout.readline())["event"] == "epoch"
        os.kill(find_workers(process.pid)[1], signal.SIGKILL)
        rest, printed = process.communicate(timeout=180)
    assert process.returncode == 0, printed
    assert (
        "lamina: No response from rank 1 of 2 processes: killed, stopped or disconnected. The last"
        " checkpoint" in printed
    )
    assert "group: torchrun has restarted it 1 time" in printed
    assert json.loads(rest.splitlines()[-1])["event"] == "result"
    assert digests(Path("runs/again")) == digests(undisturbed)


FLIPPED = """
import os
import torch
from torch import nn

class Flipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.passes = nn.Linear(3 * 32 * 32, 10), 0

    def forward(self, images):
        self.passes += self.training
        if self.passes == 5 and os.environ.get("RANK") == "1":  # as a memory error would
            self.linear.weight.data.view(torch.int32)[0, 0] ^= 1 << 20
        return self.linear(images.flatten(1))
"""


@dataclass(frozen=True)
class Cases:
    """What each process has found in ``group_cases.py``, and what they left."""

    folder: Path
    found: list[dict[str, Any]]
    status: int
    printed: str


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Cases:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "flipped.py").write_text(FLIPPED)
    ended = run(torchrun(3, SCRIPT.with_name("group_cases.py")), folder)
    assert ended.stdout, ended.stderr
    return Cases(folder, json.loads(ended.stdout.splitlines()[-1]), ended.returncode, ended.stderr)


@pytest.mark.slow
def test_what_happens_to_one_process_happens_to_all_at_the_same_step(cases):
    found = cases.found
    for case in ("stopped", "rewound", "misplaced"):
        assert found[0][case] == found[1][case] == found[2][case], case
    assert [own["has the run"] for own in found] == [True, False, False]  # the leader's disk has it
    assert (
        found[0]["misplaced"]
        == "Rank 1 has the run moved, but rank 0, which writes it, does not. Keep runs on a disk"
        " that the machines share, or start torchrun with --node-rank 0 on the machine that has"
        " the run."
    )
    # interrupted by rank 1 in step 2, though every tenth step has a record
    assert found[0]["stopped"] == [1, 2, 3]
    rewind = found[0]["rewound"]
    assert rewind.startswith(
        "The loss became NaN at step 1 of epoch 2. The first values that are not finite: the"
        " logits, "
    )
    expected = (
        "differs between the processes (none of them has a majority). Use the same images on every"
        " machine"
    )
    assert all(expected in own["other data"] for own in found)


@pytest.mark.slow
def test_a_process_that_dies_while_others_wait_for_it_is_named_before_torchrun_kills_them(cases):
    assert cases.status == 1
    assert (
        cases.printed.count(
            "GroupError: No response from rank 1 of 3 processes: killed, stopped or disconnected."
        )
        == 2
    )


@pytest.mark.slow
def test_a_flipped_bit_is_found_at_the_end_of_the_epoch_and_its_rank_is_named(cases):
    flipped = [own["flipped"] for own in cases.found]
    assert [status for status, _ in flipped] == [75, 75, 75]
    message = (
        "lamina: After epoch 1, the weights differ between the processes (rank 1 deviates). Memory"
    )
    assert message in flipped[0][1]
    assert digests(cases.folder / "runs/flipped") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "too few lanes",
            "lamina: lanes is 1, but 3 processes train together and each needs at least one lane.",
        ),
        ("a time", "lamina: A group of processes needs a NET and cannot use --time"),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(cases, case, message):
    found = [own[case] for own in cases.found]
    assert [status for status, _ in found] == [2, 2, 2]
    assert "".join(printed for _, printed in found).count("lamina: ") == 1
    assert message in found[0][1]
