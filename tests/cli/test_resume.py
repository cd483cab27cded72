"""Trainings that are stopped, run out of room or go wrong lose nothing, as a person meets it on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import events

from lamina.cli import main

NET = "Flatten(), Linear(8), ReLU(), Output()"
FLAGS = ("--epochs", "40", "--batch-size", "20", "--precision", "fp32", "--flip", "random", "--ema-decay", "0.9")

# A process's files may only grow so large, as on a full disk; what is written before the training is let through.
FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from lamina import runs
from lamina.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""

SMALL_MEMORY = """
import resource, sys
import lamina.drawing, lamina.training.loop, lamina.cli.train, lamina.runs, lamina.training.memory
from lamina.cli import main
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def train(pictures: Path, name: str, *flags: str) -> Path:
    assert main(["train", NET, "--data", str(pictures), "--name", name, *FLAGS, *flags]) == 0
    return Path("runs") / name


def read_weights(run: Path) -> list[str]:
    """The digests of the weights after each epoch."""
    return [
        row["weights"] for row in map(json.loads, (run / "history.jsonl").read_text().splitlines()) if "epoch" in row
    ]


def read_state(run: Path) -> bytes:
    return (run / "state.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(workplace, pictures, capsys, number, status):
    straight = train(pictures, "straight", "--epochs", "150")
    command = [sys.executable, "-m", "lamina", "train", NET, "--data", str(pictures), "--name", "stopped", *FLAGS,
               "--epochs", "150", "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(number)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == status, told
    assert told.splitlines()[-1] == f"lamina: stopped by {number.name}; go on with: lamina resume runs/stopped"
    assert json.loads(rest.splitlines()[-1])["event"] == "result"
    stopped = Path("runs/stopped")
    assert 0 < len(read_weights(stopped)) < 150
    assert not (stopped / "report.json").exists()
    assert main(["resume", "runs/stopped"]) == 0
    assert read_weights(stopped) == read_weights(straight)
    assert (stopped / "report.json").read_bytes() == (straight / "report.json").read_bytes()


def test_a_finished_run_is_judged_again_and_goes_on_with_more_epochs(workplace, pictures, capsys):
    longer = train(pictures, "longer", "--epochs", "6")
    run = train(pictures, "run", "--epochs", "4")
    report = (run / "report.json").read_bytes()
    (run / "report.json").unlink()  # as a kill while it was judged leaves it
    assert main(["resume", "runs/run"]) == 0
    assert (run / "report.json").read_bytes() == report
    assert main(["resume", "runs/run", "--epochs", "6"]) == 0
    assert read_weights(run) == read_weights(longer)
    assert json.loads((run / "run.json").read_text())["recipe"]["epochs"] == 6
    capsys.readouterr()
    assert main(["resume", "runs/run", "--epochs", "5"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "lamina: epochs was 5, but runs/run has 6 behind it. Give more."
    train(pictures, "cosine", "--epochs", "2", "--schedule", "cosine")
    assert main(["resume", "runs/cosine", "--epochs", "6"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(
            "lamina: epochs can't go from 2 to 6: the schedule cosine is spread over all epochs, so that every step so far "
        )
    )


def test_verify_tells_whether_the_weights_are_the_same_and_leaves_the_run_alone(workplace, pictures, capsys):
    run = train(pictures, "run", "--epochs", "3")
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    capsys.readouterr()
    assert main(["verify", "runs/run", "--epochs", "3", "--json"]) == 0
    *epochs, result = events(capsys.readouterr().out)
    assert [event["recorded"] for event in epochs] == [event["again"] for event in epochs] == read_weights(run)
    assert result == {"event": "result", "run": "runs/run", "same": True, "epochs": 3, "changes": []}
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before

    history = run / "history.jsonl"
    history.write_text(history.read_text().replace(read_weights(run)[1], "0" * 32))
    record = json.loads((run / "run.json").read_text())
    record["versions"]["torch"] = "1.0"
    (run / "run.json").write_text(json.dumps(record))
    assert main(["verify", "runs/run", "--epochs", "3"]) == 2
    out, err = capsys.readouterr()
    assert [line.split("\t")[-1] for line in out.splitlines()] == ["same", "yes", "no"]
    assert "versions.torch was 1.0, and is " in err
    assert err.splitlines()[-1] == ("lamina: runs/run: epoch 2 gives other weights. The differences above may be why.")
    assert main(["verify", "runs/run", "--epochs", "4"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "lamina: runs/run has 3 whole epochs, and 4 were asked for. Give fewer --epochs."
    )


def test_what_differs_between_two_runs_is_shown(workplace, pictures, capsys):
    train(pictures, "one", "--epochs", "1")
    train(pictures, "two", "--epochs", "1", "--lr", "0.02")
    train(pictures, "three", "--epochs", "1")
    capsys.readouterr()
    assert main(["runs", "--diff", "runs/one", "runs/three"]) == 0
    assert capsys.readouterr().out == "runs/one and runs/three differ in nothing but their time and name\n"
    assert main(["runs", "--diff", "runs/one", "runs/two"]) == 0
    assert "recipe.lr\t0.001\t0.02\n" in capsys.readouterr().out
    assert main(["runs", "--diff", "runs/one", "runs/two", "--json"]) == 0
    *differences, result = events(capsys.readouterr().out)
    assert {"event": "difference", "what": "recipe.lr", "a": "0.001", "b": "0.02"} in differences
    assert result == {"event": "result", "runs": ["runs/one", "runs/two"], "differences": len(differences)}


def test_a_full_disk_is_a_warning_and_the_last_whole_checkpoint_stays(workplace, pictures, capsys):
    straight = train(pictures, "straight", "--epochs", "6")
    run = train(pictures, "run", "--epochs", "3")
    whole = read_state(run), (run / "model.safetensors").read_bytes()
    command = [sys.executable, "-c", FULL_DISK, "8000", "resume", "runs/run", "--epochs", "6", "--save-every", "0s"]
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert "epoch 6/6  train loss" in full.stdout
    assert (
        "warning: cannot write to runs/run: File too large. The training goes on, and the last whole checkpoint "
        in (full.stderr)
    )
    assert full.stderr.splitlines()[-1] == (
        "lamina: Cannot write to runs/run: File too large. What was saved before is whole: make room, then "
        "lamina resume runs/run"
    )
    assert (read_state(run), (run / "model.safetensors").read_bytes()) == whole
    assert not list(run.glob(".*.????????"))
    assert main(["resume", "runs/run"]) == 0
    assert read_weights(run) == read_weights(straight)
    assert read_state(run)[-100:] == read_state(straight)[-100:]


def test_a_history_that_cannot_grow_ends_where_it_ended(workplace, pictures, capsys):
    straight = train(pictures, "straight", "--epochs", "6")
    run = train(pictures, "run", "--epochs", "3")
    length = (run / "history.jsonl").stat().st_size
    before = read_weights(run)
    command = [sys.executable, "-c", FULL_DISK, str(length + 100), "resume", "runs/run"]
    # The recipe is changed before the disk fills up: run.json would not fit either.
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["epochs"] = 6
    (run / "run.json").write_text(json.dumps(record))
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert (run / "history.jsonl").stat().st_size == length
    assert read_weights(run) == before
    assert main(["resume", "runs/run"]) == 0
    assert read_weights(run) == read_weights(straight)


def test_out_of_memory_tells_the_batch_size_that_fits(workplace, pictures, capsys):
    wide = "Flatten(), Linear(200000), ReLU(), Output()"  # 60 images take 48 MB a layer, and the weights 350 MB
    train_flags = [
        "train",
        wide,
        "--data",
        str(pictures),
        "--precision",
        "fp32",
        "--optimizer",
        "sgd",
        "--momentum",
        "0",
    ]
    command = [
        sys.executable,
        "-c",
        SMALL_MEMORY,
        str(1_000_000_000),
        *train_flags,
        "--batch-size",
        "60",
        "--name",
        "big",
    ]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.splitlines()[-1] == ""


def test_numbers_that_go_wrong_end_the_training_with_its_last_good_checkpoint(workplace, pictures, capsys):
    wild = ["--optimizer", "sgd", "--lr", "1e30", "--epochs", "2"]
    assert main(["train", NET, "--data", str(pictures), "--name", "wild", *FLAGS, *wild]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(
        "lamina: The loss became nan at step 2 of epoch 1. First not finite: the activations of layer "
    )
    assert told.endswith(
        "What usually helps: a lower lr (it is 1e+30), gradient_clip 1, or BatchNorm() in the net. The run keeps its "
        "last good checkpoint; with --on-nan rewind, lamina resume runs/wild goes on from there with half the lr."
    )
    assert main(["resume", "runs/wild", "--on-nan", "rewind", "--json"]) == 2
    out, err = capsys.readouterr()
    rewinds = [json.loads(line) for line in Path("runs/wild/history.jsonl").read_text().splitlines()]
    assert [(row["rewind"], row["lr"]) for row in rewinds] == [(1, 5e29), (2, 2.5e29), (3, 1.25e29)]
    assert [event["rewind"] for event in events(out)] == [1, 2, 3]
    assert "Back to step 0 with half the lr, 5e+29 (1 of 3 times)." in err
    assert err.splitlines()[-1].endswith(
        "It has gone back to a checkpoint 3 times already, and ends here; runs/wild keeps its last good checkpoint."
    )


def test_a_training_that_was_rewound_goes_on_and_is_resumed_at_its_lower_rate(workplace, pictures, capsys):
    # The first steps hold out at this rate, and the third would not.
    limit = find_rate_that_breaks(pictures)
    flags = ["--optimizer", "sgd", "--momentum", "0", "--lr", str(limit), "--epochs", "4", "--on-nan", "rewind"]
    run = train(pictures, "run", *flags, "--save-every", "0s")
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    rewinds = [row for row in rows if "rewind" in row]
    epochs = [row for row in rows if "epoch" in row]
    assert 1 <= len(rewinds) <= 3
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["lr"] == limit / 2 ** len(rewinds)
    assert main(["resume", "runs/run", "--epochs", "5"]) == 0
    last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    assert (last["epoch"], last["lr"]) == (5, epochs[-1]["lr"])
    capsys.readouterr()
    assert main(["verify", "runs/run", "--epochs", "5"]) == 2
    assert "went back to a checkpoint after epoch 0, with another lr from there" in capsys.readouterr().err


def find_rate_that_breaks(pictures: Path) -> float:
    """The least power of ten at which the training does not come to its end."""
    for power in range(1, 39):
        rate = 10.0**power
        flags = ["--optimizer", "sgd", "--momentum", "0", "--lr", str(rate), "--epochs", "4"]
        if main(["train", NET, "--data", str(pictures), "--name", f"rate-{power}", *FLAGS, *flags]) == 2:
            return rate
    raise AssertionError("no rate breaks it")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("resume runs/none", "There is no run runs/none. runs holds no runs: make one with lamina train."),
        ("verify runs/none", "There is no run runs/none. runs holds no runs: make one with lamina train."),
        ("runs --diff runs/a runs/b", "There is no run runs/a. runs holds no runs: make one with lamina train."),
        ("resume runs/x --save-every 60", "--save-every was '60', but takes a time such as 30s, 5m or 1h."),
        ("train mlp --data shapes --save-every often", "--save-every was 'often', but takes a time such as 30s, 5m or "
         "1h."),
        ("train mlp --data shapes --device cpu --batch-size auto", "--batch-size auto fills the memory of a CUDA device, "
         "but this training is on cpu (as asked). Give a number; 100 is usual."),
        ("train mlp --batch-size=auto --data shapes", "--batch-size auto fills the memory of a CUDA device, but this "
         "training is on cpu (no GPU found). Give a number; 100 is usual."),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_message(workplace, capsys, command, message):
    assert main(command.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"
    assert not Path("runs").exists()


def test_changed_data_is_refused_and_moved_data_is_taken(workplace, tmp_path, capsys):
    from commands import write_pictures

    folder = write_pictures(tmp_path / "mine", 20)
    run = train(folder, "run", "--epochs", "1")
    moved = folder.rename(tmp_path / "moved")
    assert main(["resume", "runs/run", "--epochs", "2"]) == 2
    assert "there is no data set named" in capsys.readouterr().err
    assert main(["resume", "runs/run", "--epochs", "2", "--data", str(moved)]) == 0
    (moved / "dark" / "0.png").unlink()
    assert main(["resume", "runs/run", "--epochs", "3", "--data", str(moved)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("lamina: moved is not what runs/run learned from: its fingerprint is ")
    assert len(read_weights(run)) == 2


def test_two_trainings_of_one_run_are_refused(workplace, pictures, capsys):
    command = [sys.executable, "-m", "lamina", "train", NET, "--data", str(pictures), "--epochs", "1000000", "--name",
               "busy", "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        process.stdout.readline()
        assert main(["resume", "runs/busy"]) == 2
        process.kill()
        process.communicate()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lamina: runs/busy is being trained by process {process.pid}. Wait until it ends, or stop it, and try again."
    )
    record = json.loads(Path("runs/busy/run.json").read_text())
    record["recipe"]["epochs"] = 1
    Path("runs/busy/run.json").write_text(json.dumps(record))
    assert main(["resume", "runs/busy"]) == 2  # and the lock is free again
    assert "runs/busy has" in capsys.readouterr().err.splitlines()[-1]


def test_a_module_of_ones_own_is_resumed_with_its_file(workplace, pictures, capsys):
    Path("mine.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(432, 2))\n"
    )
    for name, epochs in (("straight", "3"), ("own", "2")):
        assert main(["train", "mine.py", "--data", str(pictures), "--name", name, *FLAGS, "--epochs", epochs]) == 0
    assert "net: mine.py is Python, and is run: it can do all that you can\n" in capsys.readouterr().err
    assert main(["resume", "runs/own", "--epochs", "3"]) == 2
    assert "lamina runs no code that a run names" in capsys.readouterr().err
    assert main(["resume", "runs/own", "--epochs", "3", "--net", "mine.py"]) == 0
    assert read_weights(Path("runs/own")) == read_weights(Path("runs/straight"))
