"""Processes of torchrun that train together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamina import Epoch, load_data, start_run
from lamina.runs.run import load_run
from support.commands import run_well
from support.groups import Ended, run_group
from support.runs import digests

TRAIN = ("train", "mlp", "--epochs", "60", "--batch-size", "10", "--lanes", "4")
"""Long enough for a process to be found and killed after the first epoch."""


def run_script(name: str, size: int) -> list[Ended]:
    path = Path(__file__).with_name(name)
    return run_group(size, code=f"import runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')")


def test_weights_and_logits_do_not_depend_on_processes():
    ended = run_script("group_script.py", 4)
    assert [process.status for process in ended] == [0] * 4, ended
    four, three, alone = map(json.loads, ended[0].printed.splitlines())
    assert len(alone) == 14
    assert three == alone
    assert four == alone


@pytest.fixture(scope="module")
def undisturbed_run(image_set, tmp_path_factory) -> Path:
    """The run of TRAIN by one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_well(*TRAIN, "--data", image_set, "--name", "alone", "--runs-dir", folder)
    return folder / "alone"


def test_a_training_that_others_resume_has_the_same_weights(workplace, image_set, undisturbed_run):
    recipe = load_run(undisturbed_run).record.recipe
    data = load_data(image_set)
    begun = start_run(data, "mlp", recipe, name="begun")
    next(event for event in begun.iter_train() if isinstance(event, Epoch))
    resumed = run_group(3, "resume", "runs/begun")
    assert [process.status for process in resumed] == [0] * 3, resumed
    assert "group: 3 processes of 1 thread each; each batch has 4 lanes" in resumed[0].errors
    assert digests(Path("runs/begun")) == digests(undisturbed_run)
    reports = [load_run(path).report for path in (undisturbed_run, Path("runs/begun"))]
    assert reports[0].to_json() | {"seconds": 0} == reports[1].to_json() | {"seconds": 0}


def find_workers(launcher: int) -> dict[int, int]:
    """The processes of torchrun's workers, by rank, once they have started."""
    workers = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{launcher}\n" in (folder / "status").read_text():
                environment = (folder / "environ").read_bytes()
                if rank := re.search(rb"(?:^|\0)RANK=(\d+)\0", environment):
                    workers[int(rank[1])] = int(folder.name)
        except OSError:
            continue
    return workers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_a_killed_process_ends_the_others_and_the_run_is_resumed(
    workplace, image_set, undisturbed_run
):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*launcher, "-m", "lamina", *TRAIN, "--data", image_set, "--name", "killed", "--json"]
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        next(line for line in process.stdout if '"event": "epoch"' in line)
        os.kill(find_workers(process.pid)[1], signal.SIGKILL)
        _, printed = process.communicate()
    assert process.returncode == 1, printed
    assert "rank      : 1" in printed  # torchrun names the lost process
    assert "Signal 9 (SIGKILL)" in printed
    run_well("resume", "runs/killed")
    assert digests(Path("runs/killed")) == digests(undisturbed_run)


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


@pytest.fixture(scope="module")
def ended_processes(tmp_path_factory) -> tuple[Path, list[Ended]]:
    """The folder and the ended processes of ``group_cases.py``."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "flipped.py").write_text(FLIPPED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = run_script("group_cases.py", 3)
    assert ended[0].printed, ended
    return folder, ended


@pytest.fixture
def results(ended_processes) -> list[dict[str, Any]]:
    """What each process has seen, by rank."""
    _, ended = ended_processes
    return json.loads(ended[0].printed.splitlines()[-1])


def test_what_happens_to_one_process_happens_to_all(results):
    assert results[0]["stopped"] == results[1]["stopped"] == results[2]["stopped"]
    # Only the leader's disk has the run.
    assert [result["has the run"] for result in results] == [True, False, False]
    # interrupted by rank 1 in step 2, though every tenth step has a record
    assert results[0]["stopped"] == [1, 2, 3]
    for result in results:  # only the net of rank 1 gives NaN here
        assert result["poisoned"].startswith("The loss became NaN at step 1 of epoch 2.")
    assert "the loss, for logits up to nan" in results[1]["poisoned"]
    expected = (
        "differs between the processes (none of them has a majority). Use the same images on every"
        " machine"
    )
    assert all(expected in result["other data"] for result in results)


def test_the_others_notice_at_once_that_a_process_was_killed(ended_processes):
    _, ended = ended_processes
    assert [process.status for process in ended] == [1, -signal.SIGKILL, 1]
    message = "GroupError: Another process of the group has ended, or the connection to it broke"
    assert [message in process.errors for process in ended] == [True, False, True]


def test_a_flipped_bit_is_found_after_the_epoch_with_its_rank(ended_processes, results):
    assert [result["flipped"][0] for result in results] == [75, 75, 75]
    message = (
        "lamina: After epoch 1, the weights differ between the processes (rank 1 deviates). Memory"
    )
    assert message in results[0]["flipped"][1]
    assert digests(ended_processes[0] / "runs/flipped") == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "too few lanes",
            "lamina: lanes is 1, but 3 processes train together and each needs at least one lane.",
        ),
        ("a time", "for a number of epochs. Leave out --time."),
        ("seeds", "for a number of epochs. Leave out --seeds."),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(results, case, message):
    assert [result[case][0] for result in results] == [2, 2, 2]
    assert "".join(result[case][1] for result in results).count("lamina: ") == 1
    assert message in results[0][case][1]
