"""Runs and their files after a kill, and two processes on one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lamina import load_run
from lamina.files import lock_folder
from lamina.runs.run import Run
from support import forking
from support.runs import digests, refuses, start

EIGHT_LINES = """
import sys
from lamina import Net, Recipe, load_data, start_run
from lamina.nets import Flatten, Linear, Output, ReLU
from lamina.runs import course

course.SAVE_SECONDS = 0.0  # a checkpoint after each step
data = load_data(sys.argv[1])
net = Net(Flatten(), Linear(100), ReLU(), Output())
run = start_run(data, net, Recipe(epochs=3, batch_size=5, optimizer="adam", lr=1e-3, \
precision="fp32"), name="run")
for event in run.iter_train():
    print(type(event).__name__, getattr(event, "epoch", ""), flush=True)
print(run.report)
"""
IN_A_THREAD = """
import sys, threading
lines = sys.stdin.read()
thread = threading.Thread(target=exec, args=(lines, {}))
thread.start()
thread.join()
"""


@pytest.fixture(scope="module")
def undisturbed(image_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the script makes in a process of its own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = forking.run(image_set, code=EIGHT_LINES, cwd=folder)
    assert done.stdout.count("Epoch") == 3, done.stderr
    return load_run(folder / "runs" / "run")


@pytest.mark.parametrize("thread", [False, True], ids=["script", "thread"])
def test_a_killed_script_is_continued_to_the_same_digests(thread, image_set, undisturbed, tmp_path):
    code = IN_A_THREAD if thread else EIGHT_LINES
    with forking.start(
        image_set, code=code, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(EIGHT_LINES if thread else "")
        process.stdin.close()
        while process.stdout.readline() != "Step 2\n":
            pass
        process.kill()
        process.stdout.read()
    run = load_run(tmp_path / "runs" / "run")
    assert len(digests(run)) == 1
    run.train(progress=False)  # in this process, which is another
    assert digests(run) == digests(undisturbed)
    assert run.report.score == undisturbed.report.score


SIGNAL_AT_LINE = """
import os, signal, sys

def signal_at(number, sign, modules):
    # for sys.settrace: before a line of the modules, counted as they run
    seen = 0
    paths = [module.__file__ for module in modules]
    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code.co_filename not in paths:
            return None
        seen += event == "line"
        if seen == number and event == "line":
            os.kill(os.getpid(), sign)
        return trace
    return trace
"""


KILL_BEFORE_EVERY_LINE = """
from pathlib import Path
import torch
from lamina import files
from lamina.training import checkpoint as stored

file = Path(sys.argv[1]) / "state.safetensors"
old, new = ({"weight": torch.full((50_000,), value)} for value in (1.0, 2.0))
digests = {stored.digest_tensors(tensors): name for name, tensors in (("old", old), ("new", new))}
files.write_atomically(file, stored.pack_tensors(old, {}))
kills, left = [], 0
while True:
    child = os.fork()
    if child == 0:
        sys.settrace(signal_at(len(kills) + 1, signal.SIGKILL, (files, stored)))
        files.write_atomically(file, stored.pack_tensors(new, {}))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    found, _ = stored.unpack_tensors(files.read_bytes(file), "", "")
    kills.append(digests[stored.digest_tensors(found)])
    left += len(list(file.parent.iterdir())) - 1
    for leftover in file.parent.glob(".*"):
        leftover.unlink()
    files.write_atomically(file, stored.pack_tensors(old, {}))
print(" ".join(kills), left)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
def test_a_writer_killed_anywhere_leaves_the_old_or_the_new(tmp_path):
    code = SIGNAL_AT_LINE + KILL_BEFORE_EVERY_LINE
    done = forking.run(tmp_path, code=code, environment=forking.unmeasured())
    assert done.returncode == 0, done.stderr
    *found, left = done.stdout.split()
    assert found == sorted(found, reverse=True)  # the old, and from some line on the new
    assert len(found) >= 20
    assert set(found) == {"old", "new"}
    assert int(left) >= 3  # files half written, which nobody reads
    print(f"{len(found)} kills, {left} of them left a file beside")


CREATE_AT_EVERY_LINE = """
from dataclasses import replace
from pathlib import Path
from lamina import files
from lamina.errors import RunError
from lamina.runs import start
from lamina.runs.run import load_run

def create(runs_dir, creator):
    try:
        start.create_folder(
            runs_dir,
            replace(record, command=(creator,)),
            name="run",
            files={"initial.safetensors": creator.encode()},
        )
    except RunError as error:
        assert "already exists" in str(error), error
        return False
    return True

record = load_run(sys.argv[1]).record
sign = signal.Signals[sys.argv[2]]
creators = []
while True:
    runs_dir = Path(f"{len(creators)}")
    child = os.fork()
    if child == 0:
        sys.settrace(signal_at(len(creators) + 1, sign, (files, start)))
        os._exit(0 if create(runs_dir, "first") else 1)
    status = os.waitpid(child, os.WUNTRACED)[1]
    if status == 0:
        break
    is_second = create(runs_dir, "second")
    if sign == signal.SIGSTOP:
        os.kill(child, signal.SIGCONT)
        status = os.waitpid(child, 0)[1]
        assert is_second == (os.waitstatus_to_exitcode(status) == 1), len(creators)
    creator = "second" if is_second else "first"
    assert load_run(runs_dir / "run").record.command == (creator,)
    assert (runs_dir / "run" / "initial.safetensors").read_text() == creator
    creators.append(creator)
print(" ".join(creators))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
@pytest.mark.parametrize("sign", ["SIGSTOP", "SIGKILL"])
def test_of_two_processes_that_create_a_run_one_does_so_and_one_that_is_killed_does_not(
    sign, tmp_path
):
    run, _ = start(tmp_path)
    code = SIGNAL_AT_LINE + CREATE_AT_EVERY_LINE
    environment = forking.unmeasured()
    done = forking.run(run.path, sign, code=code, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    creators = done.stdout.split()
    assert len(creators) >= 50
    assert set(creators) == {"first", "second"}
    if sign == "SIGKILL":
        assert creators == sorted(creators, reverse=True)
    print(f"{len(creators)} lines of code")


LOCK = """
import sys
from pathlib import Path
from lamina.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_train_one_run(tmp_path):
    run, _ = start(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout.readline() == "held\n"
        with (
            refuses(
                f"{run.path} is being trained by another process, another thread or an open"
                " iterator. Wait until it finishes, or stop it (close() the iterator of"
                " run.iter_train())."
            ),
            lock_folder(run.path),
        ):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with lock_folder(run.path):
        pass
