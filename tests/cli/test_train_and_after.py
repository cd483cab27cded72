"""The journey of a person with a folder of pictures, command after command, each a process of its own."""

import json
import os
import signal
import subprocess
import sys

import pytest
from commands import SIDE_PX, events, run_lamina, write_pictures
from PIL import Image

NET = "Flatten(), Linear(8), ReLU(), Output()"


def test_a_net_is_trained_judged_listed_and_used(workplace, pictures):
    trained = run_lamina("train", NET, "--data", pictures, "--epochs", "30", "--lr", "0.01", "--name", "mine", "--json")
    assert trained.returncode == 0, trained.stderr
    *epochs, result = events(trained.stdout)
    assert [event["epoch"] for event in epochs] == list(range(1, 31))
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert set(epochs[0]) == {
        "event", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
        "train_seconds", "images_per_second", "lr",
    }  # fmt: skip
    assert result["event"] == "result"
    assert result["run"] == "runs/mine"
    assert result["parameters"] == 3 * SIDE_PX**2 * 8 + 8 + 8 * 2 + 2
    assert result["test_accuracy"] == epochs[-1]["test_accuracy"] > 0.9
    assert result["train_seconds"] == pytest.approx(sum(event["train_seconds"] for event in epochs))
    assert result["train_seconds"] < result["seconds"]

    run = workplace / "runs" / "mine"
    assert {file.name for file in run.iterdir()} == {
        "run.json", "history.jsonl", "model.safetensors", "report.json", "curves.png", "confusion.png",
    }  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    assert record["command"][:3] == ["lamina", "train", NET]
    assert record["data"]["source"] == str(pictures)
    with Image.open(run / "curves.png") as curves:
        assert min(curves.size) > 300

    judged = run_lamina("evaluate", run, "--json")
    assert judged.returncode == 0, judged.stderr
    (report,) = events(judged.stdout)
    assert report["accuracy"] == result["test_accuracy"]
    assert report["images"] == 20

    bright, dark = pictures / "test/bright/0.png", pictures / "test/dark/1.png"
    broken = workplace / "broken.png"
    broken.write_bytes(bright.read_bytes()[:60])
    told = run_lamina("predict", run, bright, broken, dark, "--top", "1", "--json")
    assert told.returncode == 2
    first, second, problem = events(told.stdout)
    assert list(first["answers"]) == ["bright"]
    assert list(second["answers"]) == ["dark"]
    assert first["answers"]["bright"] > 0.5
    assert (problem["event"], problem["image"]) == ("problem", str(broken))
    assert f"lamina: {broken} could not be read" in told.stderr

    listed = run_lamina("runs", "--json")
    (row,) = events(listed.stdout)
    assert (row["run"], row["net"], row["epochs"]) == ("runs/mine", "net", 30)
    assert row["test_accuracy"] == result["test_accuracy"]


def test_a_pipe_gets_plain_lines_and_every_default_is_told(workplace, pictures):
    trained = run_lamina("train", "mlp", "--data", pictures, "--epochs", "2", "--seed", "3")
    assert trained.returncode == 0, trained.stderr
    assert "\x1b" not in trained.stdout + trained.stderr
    lines = trained.stdout.splitlines()
    assert lines[0].startswith("epoch 1/2  train loss ")
    assert any(line.startswith("test accuracy ") and "95 % interval" in line for line in lines)
    told = trained.stderr.splitlines()
    assert told[0] == f"data: {pictures.name} (as asked): 60 train, 20 test; 3×{SIDE_PX}×{SIDE_PX}"
    assert told[1] == "recipe: epochs 2, batch_size 100, optimizer adam, lr 0.001, seed 3"
    assert told[2] == "net: mlp, 43,502 parameters"
    assert told[3].startswith("device: cpu (no GPU found); precision: ")
    assert told[4].startswith("run: runs/2")


def test_a_change_of_optimizer_brings_its_usual_lr_unless_one_is_given(workplace, pictures):
    usual = run_lamina("train", "mlp", "--data", pictures, "--epochs", "1", "--optimizer", "sgd", "--name", "usual")
    given = run_lamina("train", "mlp", "--data", pictures, "--epochs", "1", "--optimizer", "sgd", "--lr", "0.001")
    assert "lr: 0.05 (usual for sgd; --lr sets another)\n" in usual.stderr
    assert "optimizer sgd, lr 0.001," in given.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_keeps_its_model(workplace, pictures, number, status):
    command = [sys.executable, "-m", "lamina", "train", NET, "--data", str(pictures), "--epochs", "1000000", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        first = json.loads(process.stdout.readline())
        process.send_signal(number)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == status, told
    result = json.loads(rest.splitlines()[-1])
    assert first["event"] == "epoch"
    assert result["event"] == "result"
    assert f"lamina: stopped by {number.name}; the model as it stands is in {result['run']}\n" in told
    judged = run_lamina("evaluate", result["run"], "--json")
    assert judged.returncode == 0, judged.stderr


def test_a_file_of_ones_own_holds_a_net_or_makes_a_module(workplace, pictures):
    (workplace / "mine.py").write_text(
        "from torch import nn\n"
        "from lamina.nets import Flatten, Net, Output\n"
        "small = Net(Flatten(), Output())\n"
        f"def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear({3 * SIDE_PX**2}, 2))\n"
    )
    ambiguous = run_lamina("train", "mine.py", "--data", pictures)
    assert ambiguous.returncode == 2
    assert ambiguous.stderr.splitlines()[-1] == (
        "lamina: mine.py should hold one net or function, or be given as mine.py:NAME. It holds: small, build."
    )
    as_net = run_lamina("train", "mine.py:small", "--data", pictures, "--epochs", "1", "--name", "net")
    assert "net: mine.py is Python, and is run\n" in as_net.stderr
    assert run_lamina("evaluate", "runs/net").returncode == 0
    as_module = run_lamina("train", "mine.py:build", "--data", pictures, "--epochs", "1", "--name", "module")
    assert as_module.returncode == 0, as_module.stderr
    refused = run_lamina("evaluate", "runs/module")
    assert refused.returncode == 2
    assert "lamina runs no code that a run names. Give the module again with --net" in refused.stderr
    assert run_lamina("evaluate", "runs/module", "--net", "mine.py:build").returncode == 0


def test_pictures_that_cannot_be_read_are_named_and_the_rest_is_used(workplace, tmp_path):
    folder = write_pictures(tmp_path / "mine", 20)
    (folder / "dark" / "7.png").write_bytes(b"no picture")
    shown = run_lamina("data", folder)
    assert shown.returncode == 0, shown.stderr
    assert "warning: 1 picture could not be read and was left out: dark/7.png" in shown.stderr
    assert "not read: dark/7.png" in shown.stdout
    assert "splits: " in shown.stdout
