"""Runs that are resumed, evaluated again, reproduced or moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.cli import main
from support.commands import events
from support.images import write_images
from support.runs import digests, plan_epochs
from support.trained_runs import FLAGS, copy_trained


def read_weights_after(run: Path) -> dict[int, str]:
    """The digests of the weights in the history, by the epoch after which they were taken."""
    rows = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return {row["epoch"]: row["weights"] for row in rows if "weights" in row}


def read_report(run: Path) -> dict[str, object]:
    return {
        name: value
        for name, value in json.loads((run / "report.json").read_text()).items()
        if name != "seconds"
    }


EVALUATED = """
import signal
from torch import nn

class Evaluated(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(432, 2)

    def forward(self, images):
        is_trained = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if {signals} and is_trained and not self.training and len(images) not in (2, 6):
            signal.raise_signal(signal.SIGTERM)
        return self.linear(self.flatten(images))
"""


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_a_signal_while_the_last_model_is_evaluated(splits, workplace, tmp_path, capsys):
    for seed, split in enumerate(splits):
        # val is evaluated without a signal
        write_images(tmp_path / "mine" / split, 3 if split == "val" else 8, seed)
    flags = [
        "--data",
        str(tmp_path / "mine"),
        "--name",
        "run",
        "--precision",
        "fp32",
        "--epochs",
        "1",
    ]
    Path("mine.py").write_text(EVALUATED.format(signals=True))
    assert main(["train", "mine.py", *flags]) == 143
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: stopped by SIGTERM; to evaluate, run lamina resume runs/run --net"
        f" {workplace / 'mine.py'}"
    )
    Path("mine.py").write_text(EVALUATED.format(signals=False))
    assert main(["resume", "runs/run", "--net", "mine.py"]) == 0
    assert read_report(Path("runs/run"))["split"] == "test"


def test_a_finished_run_is_evaluated_again(workplace, image_set, capsys):
    run = copy_trained(image_set, "run", "--epochs", "4")
    report = read_report(run)
    (run / "report.json").unlink()  # as a kill while it was evaluated leaves it
    capsys.readouterr()
    assert main(["resume", "runs/run"]) == 0
    assert "runs/run: all 4 epochs are done; evaluating the model\n" in capsys.readouterr().err
    assert read_report(run) == report
    model = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(model[:-1])
    assert main(["evaluate", "runs/run"]) == 2
    assert capsys.readouterr().err.endswith("or write it again with lamina resume runs/run\n")
    assert main(["resume", "runs/run"]) == 0
    assert (run / "model.safetensors").read_bytes() == model


def test_reproduce_compares_the_weights_and_leaves_the_run_alone(workplace, image_set, capsys):
    run = copy_trained(image_set, "run", "--epochs", "3")
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    capsys.readouterr()
    assert main(["reproduce", "runs/run", "--epochs", "3", "--json"]) == 0
    *epochs, result = events(capsys.readouterr().out)
    assert (
        [event["recorded"] for event in epochs]
        == [event["again"] for event in epochs]
        == digests(run)
    )
    assert result == {
        "event": "result",
        "run": "runs/run",
        "same": True,
        "epochs": 3,
        "changes": [],
    }
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before

    history = run / "history.jsonl"
    history.write_text(history.read_text().replace(digests(run)[1], "0" * 32))
    record = json.loads((run / "run.json").read_text())
    record["versions"]["torch"] = "1.0"
    (run / "run.json").write_text(json.dumps(record))
    assert main(["reproduce", "runs/run", "--epochs", "3"]) == 2
    out, err = capsys.readouterr()
    assert [line.split("\t")[-1] for line in out.splitlines()] == ["equal", "yes", "no"]
    assert "versions.torch: 1.0 during training, " in err
    assert (
        err.splitlines()[-1]
        == "lamina: runs/run: the weights after epoch 2 differ. The differences listed above may be"
        " the cause."
    )
    assert main(["reproduce", "runs/run", "--epochs", "4"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: --epochs is 4, but only 3 epochs of runs/run can be reproduced: it has only 3"
        " complete epochs. Use fewer --epochs, or train again."
    )


def test_lines_that_the_history_lost_cost_their_figures_alone(workplace, image_set, capsys):
    longer = copy_trained(image_set, "longer", "--epochs", "4")
    run = copy_trained(image_set, "run", "--epochs", "3")
    history = run / "history.jsonl"
    plan_epochs(run, 4)
    first, _, third = history.read_text().splitlines(keepends=True)
    history.write_text(first + '{"epoch": 2, "tra\n' + third)
    assert main(["resume", "runs/run"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(
            "Restore the file from a copy, or delete that line; weights and checkpoint are in other"
            " files."
        )
    )
    # nothing that is no line, but without a digest and the second
    history.write_text('{"event": "epoch", "epoch": 1}\n' + third)
    assert main(["reproduce", "runs/run", "--epochs", "3"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: --epochs is 3, but only 0 epochs of runs/run can be reproduced: history.jsonl"
        " lacks the digest of the weights after epoch 1. Use fewer --epochs, or train again."
    )
    assert main(["resume", "runs/run"]) == 0
    assert (
        "warning: runs/run/history.jsonl lacks 1 of 3 epochs, from epoch 2. Their metrics are lost,"
        " but the checkpoint is intact and the training resumes.\n" in capsys.readouterr().err
    )
    assert read_weights_after(run) == {epoch: read_weights_after(longer)[epoch] for epoch in (3, 4)}
    assert main(["runs"]) == 0


def test_what_differs_between_two_runs_is_shown(workplace, image_set, capsys):
    copy_trained(image_set, "one", "--epochs", "1")
    copy_trained(image_set, "two", "--epochs", "1", "--lr", "0.02")
    copy_trained(image_set, "three", "--epochs", "1")
    capsys.readouterr()
    assert main(["runs", "--diff", "runs/one", "runs/three"]) == 0
    assert capsys.readouterr().out == "runs/one and runs/three differ only in time and name\n"
    assert main(["runs", "--diff", "runs/one", "runs/two"]) == 0
    assert "recipe: lr\t0.0004\t0.02\n" in capsys.readouterr().out
    assert main(["runs", "--diff", "one", "runs/three"]) == 0
    assert capsys.readouterr().out == "runs/one and runs/three differ only in time and name\n"
    Path("runs").rename("old")
    assert main(["runs", "--diff", "one", "zebra", "--runs-dir", "old"]) == 2
    assert (
        capsys.readouterr().err
        == "lamina: No run named zebra in this folder or old. Choose from: one, three, two.\n"
    )
    Path("old").rename("runs")
    assert main(["runs", "--diff", "runs/one", "runs/two", "--json"]) == 0
    *differences, result = events(capsys.readouterr().out)
    assert {"event": "difference", "what": "recipe.lr", "a": "0.0004", "b": "0.02"} in differences
    assert result == {
        "event": "result",
        "runs": ["runs/one", "runs/two"],
        "differences": len(differences),
        "incomparable": None,
        "remarks": [],
    }


def test_changed_data_is_rejected_and_moved_data_is_taken(workplace, tmp_path, capsys):
    folder = write_images(tmp_path / "mine", 20)
    copy_trained(folder, "run", "--epochs", "1")
    moved = folder.rename(tmp_path / "moved")
    for command in (
        ["resume", "runs/run"],
        ["train", "--start-from", "run", "--epochs", "2"],
        ["reproduce", "runs/run"],
        ["evaluate", "runs/run"],
    ):
        assert main(command) == 2
        assert (
            capsys.readouterr().err.splitlines()[-1]
            == f"lamina: runs/run was trained on {folder}, which no longer exists. "
            "If it has moved, pass its new path with --data PATH (in Python, data=PATH)."
        )
    assert main(["reproduce", "runs/run", "--data", str(moved)]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/run", "--data", str(moved), "--json"]) == 0
    *_, report = events(capsys.readouterr().out)
    # and not the images it was trained on
    assert (report["split"], report["images"]) == ("test", 8)
    longer = ["train", "--start-from", "run", "--epochs", "2", "--data", str(moved)]
    assert main([*longer, "--name", "longer"]) == 0
    assert len(digests(Path("runs/longer"))) == 2
    (moved / "dark" / "0.png").unlink()
    assert main(["resume", "runs/run", "--data", str(moved)]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("lamina: moved has changed since runs/run was trained (fingerprint ")


def test_a_module_of_ones_own_is_resumed_with_its_file(workplace, image_set, capsys):
    Path("mine.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(),"
        " nn.Linear(432, 2))\n"
    )
    words = ["--data", str(image_set), "--name", "own", *FLAGS, "--epochs", "2"]
    assert main(["train", "mine.py", *words]) == 0
    assert "net: executing mine.py with your permissions\n" in capsys.readouterr().err
    assert main(["resume", "runs/own"]) == 2
    assert "your own code, which the run does not store" in capsys.readouterr().err
    assert main(["resume", "runs/own", "--net", "mine.py"]) == 0
    assert main(["train", "--start-from", "own", "--epochs", "3"]) == 2
    assert capsys.readouterr().err.endswith(
        "Add its file as NET, as in lamina train mine.py --start-from own.\n"
    )
    assert main(["train", "mine.py", "--start-from", "own", "--epochs", "1", "--name", "f"]) == 0
    record = json.loads(Path("runs/f/run.json").read_text())
    assert record["own_module"]["file"].endswith("mine.py")
    assert record["started_from"]["run"].endswith("own")
