"""The commands of docs/howto/several-machines.md, on machines that are network namespaces."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from lamina.runs.run import load_run
from support.machines import find_hindrance, join_machines

pytestmark = (
    pytest.mark.nightly
)  # torchrun and network namespaces; test_group trains with processes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/several-machines.md").read_text(encoding="utf-8")
DOCUMENTED = "-m lamina train cnn-s --data photos --lanes 8 --name shared"


def test_the_documented_script_trains(workplace, image_set):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(block.replace('"cnn-s"', '"mlp"').replace('"photos"', repr(str(image_set))), {})
    assert load_run("shared").is_finished


def test_the_documented_commands_train_on_two_machines(workplace, image_set):
    if hindrance := find_hindrance():
        pytest.skip(hindrance)
    commands = [
        found.replace("\\\n", "")
        for found in re.findall(r"^    (GLOO(?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    ]
    assert [command.count(DOCUMENTED) for command in commands] == [1, 1]
    small = f"-m lamina train mlp --data {image_set} --epochs 2 --lanes 8 --name shared"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    with join_machines(2) as machines, ExitStack() as stack:
        started = []
        for machine, command in zip(machines, commands, strict=True):
            for number, other in enumerate(machines, start=1):
                command = command.replace(f"10.0.0.{number}", other.address)
            words = [*machine.prefix, "bash", "-c", command.replace(DOCUMENTED, small)]
            process = subprocess.Popen(
                words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.enter_context(process)  # waits for its end
            stack.callback(process.terminate)  # torchrun then ends its workers
            started.append(process)
        printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(printed)
    assert "group: 2 processes" in "".join(printed)
    assert load_run("shared").is_finished
