"""Processes of torchrun that train together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import HashStore, Store

from lamina.errors import GroupError
from lamina.runs.run import load_run
from lamina.training.group import ALONE, Group
from lamina.training.rendezvous import count_start

SCRIPT = Path(__file__).parent / "group_script.py"
TRAIN = ("-m", "lamina", "train", "mlp", "--data", "shapes", "--epochs", "6", "--batch-size", "100", "--lanes", "4")


def torchrun(processes: int, *words: str | Path, restarts: int = 0) -> list[str]:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return [*launcher, "--max-restarts", str(restarts), *map(str, words)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


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
    expected = r"^Waited 0.1 seconds for ranks 1, 2 of 3 processes, which did not start. Resuming"
    with pytest.raises(GroupError, match=expected):
        count_start(HashStore(), 0, 3, 0.1)
    with pytest.raises(GroupError, match="for rank 0 of 3 processes, which did not start"):
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
    return [row["weights"] for row in load_run(run).history.epochs()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The run of TRAIN by one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run([sys.executable, *TRAIN, "--name", "alone", "--runs-dir", str(folder)]).returncode == 0
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
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_a_killed_worker_is_named_and_resuming_with_others_gives_the_same_weights(workplace, undisturbed):
    with subprocess.Popen(
        torchrun(3, *TRAIN, "--name", "killed", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["event"] == "epoch"
        os.kill(find_workers(process.pid)[1], signal.SIGKILL)
        _, printed = process.communicate(timeout=120)
    assert "lamina: No answer from rank 1 of 3 processes: killed, stopped or cut off. Nothing is lost" in printed
    assert printed.count("exitcode  : 75") == 2
    resumed = run(torchrun(2, "-m", "lamina", "resume", "runs/killed"))
    assert resumed.returncode == 0, resumed.stderr
    assert "group: 2 processes of 1 thread each, for 4 lanes of every batch" in resumed.stderr
    assert digests(Path("runs/killed")) == digests(undisturbed)
    reports = [load_run(path).report for path in (undisturbed, Path("runs/killed"))]
    assert reports[0].to_json() | {"seconds": 0} == reports[1].to_json() | {"seconds": 0}


@pytest.mark.slow
def test_a_process_that_dies_while_others_wait_for_it_is_named_before_torchrun_kills_them(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal\n"
        "from lamina.training.group import join_group\n"
        "with join_group() as group:\n"
        "    if group.rank == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)  # as a training does\n"
        "    group.wait()\n"
    )
    ended = run(torchrun(3, script))
    assert ended.returncode == 1
    assert ended.stderr.count("GroupError: No answer from rank 1 of 3 processes: killed, stopped or cut off.") == 2


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_torchrun_starts_a_training_again_that_lost_a_worker(workplace, undisturbed):
    with subprocess.Popen(
        torchrun(2, *TRAIN, "--name", "again", "--json", restarts=1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["event"] == "epoch"
        os.kill(find_workers(process.pid)[1], signal.SIGKILL)
        rest, printed = process.communicate(timeout=180)
    assert process.returncode == 0, printed
    assert "group: started again by torchrun, 1 time so far" in printed
    assert json.loads(rest.splitlines()[-1])["event"] == "result"
    assert digests(Path("runs/again")) == digests(undisturbed)


@pytest.mark.slow
def test_what_happens_to_one_process_happens_to_all_at_the_same_step(workplace):
    together = run(torchrun(2, SCRIPT.with_name("group_cases.py")))
    assert together.returncode == 0, together.stderr
    found = json.loads(together.stdout.splitlines()[-1])
    for case in ("stopped", "rewound", "misplaced"):
        assert found[0][case] == found[1][case], case
    assert [own["has the run"] for own in found] == [True, False]  # the leader's disk has it
    assert found[0]["misplaced"] == (
        "Rank 1 has the run moved, but rank 0, which writes it, does not. Keep runs on a disk that the machines share, "
        "or start torchrun with --node-rank 0 on the machine that has the run."
    )
    assert found[0]["stopped"] == [1, 2, 3]  # interrupted by rank 1 in step 2, though every tenth step has a record
    rewind = found[0]["rewound"]
    assert rewind.startswith("The loss became NaN at step 1 of epoch 2. First not finite: the logits, ")
    expected = "is not the same for all processes (none of them has a majority). Give every machine"
    assert all(expected in own["other data"] for own in found)


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


@pytest.mark.slow
def test_a_flipped_bit_is_found_at_the_end_of_the_epoch_and_its_rank_is_named(workplace):
    Path("flipped.py").write_text(FLIPPED)
    words = ("-m", "lamina", "train", "flipped.py", "--data", "shapes", "--epochs", "2", "--lanes", "3")
    ended = run(torchrun(3, *words, "--name", "flipped"))
    assert ended.returncode == 1
    assert "lamina: After epoch 1 the weights differ between the processes (rank 1 deviates): memory" in ended.stderr
    assert ended.stderr.count("exitcode  : 75") >= 1
    assert digests(Path("runs/flipped")) == []


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_said_once(workplace):
    for words, message in (
        (TRAIN[:-2], "lamina: 2 processes train together, but lanes was 1: each needs a lane of the batch."),
        ((*TRAIN, "--time", "20s"), "lamina: Each of several processes would measure another time"),
    ):
        rejected = run(torchrun(2, *[word for word in words if word not in ("--epochs", "6")]))
        assert rejected.returncode == 1
        assert rejected.stderr.count(message) == 1
        ours = re.split(r"^[EW]\d{4} ", rejected.stderr, maxsplit=1, flags=re.MULTILINE)[0]
        assert "Traceback" not in ours
