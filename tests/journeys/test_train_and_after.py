"""The journey of a person with a folder of images, command after command."""

import dataclasses
import json
import os
import shutil

import pytest
from PIL import Image

from lamina import load_run, zoo
from lamina.cli import main
from support.commands import events, run_lamina, run_well, train_once
from support.images import SIDE_PX, write_images

NET = "Flatten(), Linear(8), ReLU(), Output()"


def test_a_net_is_trained_evaluated_listed_and_used(workplace, image_set):
    trained = run_well(
        "train",
        NET,
        "--data",
        image_set,
        "--epochs",
        "30",
        "--lr",
        "0.01",
        "--name",
        "mine",
        "--json",
        draws_curves=True,
    )
    *before, result = events(trained.stdout)
    epochs = [event for event in before if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == list(range(1, 31))
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert set(epochs[0]) == {
        "event",
        "run",
        "epoch",
        "epochs",
        "train_loss",
        "train_accuracy",
        "train_seconds",
        "images_per_second",
        "lr",
        "weights",
        "layers",
    }
    assert result["event"] == "result"
    assert result["run"] == "runs/mine"
    assert result["parameters"] == 3 * SIDE_PX**2 * 8 + 8 + 8 * 2 + 2
    assert result["test_accuracy"] > 0.9
    assert result["train_seconds"] == pytest.approx(sum(event["train_seconds"] for event in epochs))
    assert result["train_seconds"] < result["seconds"]

    run = workplace / "runs" / "mine"
    assert {file.name for file in run.iterdir()} == {
        "run.json",
        "history.jsonl",
        "model.safetensors",
        "state.safetensors",
        "report.json",
        "logits.npz",
        "curves.png",
        ".lock",
    }
    record = json.loads((run / "run.json").read_text())
    assert record["command"][:3] == ["lamina", "train", NET]
    assert record["data"]["source"] == str(image_set)
    with Image.open(run / "curves.png") as curves:
        assert min(curves.size) > 300

    evaluated = run_well("evaluate", run, "--json")
    (report,) = events(evaluated.stdout)
    assert report["metrics"]["accuracy"] == result["test_accuracy"]
    assert report["images"] == 20

    bright, dark = image_set / "test/bright/0.png", image_set / "test/dark/1.png"
    broken = workplace / "broken.png"
    broken.write_bytes(bright.read_bytes()[:60])
    printed = run_lamina("predict", run, bright, broken, dark, "--json")
    assert printed.returncode == 2
    first, problem, second = events(printed.stdout)
    assert (first["predicted"], second["predicted"]) == ("bright", "dark")
    assert first["probabilities"]["bright"] > 0.5
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert (problem["event"], problem["image"]) == ("problem", str(broken))
    assert f"lamina: {broken}: truncated\n" in printed.stderr

    listed = run_lamina("runs", "--json")
    (row,) = events(listed.stdout)
    assert (row["run"], row["net"], row["epochs"]) == ("runs/mine", "net", 30)
    assert row["test_accuracy"] == result["test_accuracy"]


def test_a_file_of_ones_own_holds_a_net_or_makes_a_module(workplace, image_set):
    (workplace / "mine.py").write_text(
        "from torch import nn\n"
        "from lamina.nets import Flatten, Layer, Net, Output\n"
        "small = Net(Flatten(), Output())\n"
        "class Double(Layer):\n    def module(self, in_shape):\n        return nn.Hardtanh()\n"
        "odd = Net(Flatten(), Double(), Output())\n"
        f"def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear({3 * SIDE_PX**2}, 2))\n"
    )
    ambiguous = run_lamina("train", "mine.py", "--data", image_set)
    assert ambiguous.returncode == 2
    assert (
        ambiguous.stderr.splitlines()[-1]
        == "lamina: mine.py must define exactly one Net, or one function that returns a module. "
        "It defines small, odd, build. Use mine.py:NAME."
    )
    as_net = run_lamina(
        "train", "mine.py:small", "--data", image_set, "--epochs", "1", "--name", "net"
    )
    assert "net: executing mine.py with your permissions\n" in as_net.stderr
    run_well("evaluate", "runs/net")
    run_well("train", "mine.py:build", "--data", image_set, "--epochs", "1", "--name", "module")
    assert [load_run(f"runs/{name}").record.net_name for name in ("net", "module")] == [
        "mine-small",
        "mine-build",
    ]
    rejected = run_lamina("evaluate", "runs/module")
    assert rejected.returncode == 2
    assert (
        "your own code, which the run does not store. Pass it again with --net" in rejected.stderr
    )
    run_well("evaluate", "runs/module", "--net", "mine.py:build")
    run_well("train", "mine.py:odd", "--data", image_set, "--epochs", "1", "--name", "odd")
    rejected = run_lamina("evaluate", "runs/odd")
    assert rejected.stderr.endswith(f"Pass it again with --net {workplace / 'mine.py'}:odd.\n")
    run_well("evaluate", "runs/odd", "--net", "mine.py:odd")
    run_well("runs")
    rejected = run_lamina("evaluate", "runs/net", "--net", "mine.py:small")
    assert "runs/net stores its net, mine-small. Leave out --net." in rejected.stderr
    again = run_lamina(
        "train", "mine.py:build", "--data", image_set, "--epochs", "1", "--name", "again"
    )
    assert again.returncode == 0
    weights = [
        (workplace / "runs" / name / "model.safetensors").read_bytes()
        for name in ("module", "again")
    ]
    assert weights[0] == weights[1]


def test_the_articles_nets_are_compared_beside_published_scores(workplace, image_set):
    words = ("reproduce", "--data", image_set, "--seeds", "2")
    *_, mlp, cnn, compared = events(run_well(*words, "--json").stdout)
    assert (compared["a"], compared["b"]) == ("mlp:article", "cnn:article")
    assert compared["seeds"] == 2
    for net, measured in (("mlp", mlp), ("cnn", cnn)):
        scores = [load_run(path).report.score.value for path in measured["runs"]]
        assert (measured["net"], len(scores), measured["published"]) == (net, 2, None)
        assert measured["measured"] == pytest.approx(sum(scores) / 2)
        assert measured["low"] <= measured["measured"] <= measured["high"]
    again = run_well(*words)  # as any study, it is not trained again
    assert "epoch 1/" not in again.stdout and compared["words"] in again.stdout
    assert (
        f"The article's accuracies are for CIFAR-10, so they are not shown for {image_set.name}.\n"
        in again.stdout
    )


def test_published_scores_are_shown_for_the_data_of_the_article(workplace, image_set, monkeypatch):
    for net in ("mlp", "cnn"):
        whole = zoo.NETS[net]
        published = dataclasses.replace(whole.published, data=str(image_set.resolve()))
        monkeypatch.setitem(zoo.NETS, net, dataclasses.replace(whole, published=published))
    shown = run_lamina("reproduce", "--data", image_set).stdout
    rows = [line.split("\t") for line in shown.splitlines() if "\t" in line]
    assert rows[0] == ["net", "published", "measured", "95 % interval"]
    assert [row[:2] for row in rows[1:]] == [["mlp", "49.96 %"], ["cnn", "75.52 %"]]
    assert rows[1][3] == "needs several seeds"


def test_damaged_runs_are_reported_and_do_not_hide_the_others(workplace, image_set):
    shutil.copytree(train_once(NET, image_set, "--epochs", "1"), "runs/whole")
    (workplace / "runs" / "broken").mkdir()
    (workplace / "runs" / "broken" / "run.json").write_text("{")
    listed = run_well("runs")
    assert "runs/whole\tnet\t" in listed.stdout
    assert "runs/broken\t\t\tdamaged\t" in listed.stdout
    assert "broken/run.json is damaged" in listed.stderr
    elsewhere = run_lamina("runs", "--runs-dir", "elsewhere").stderr
    assert "There are no runs in elsewhere. Use lamina train to create one." in elsewhere


def test_each_epoch_is_evaluated_on_val_and_the_last_on_test(workplace, tmp_path):
    folder = tmp_path / "three"
    for seed, (split, count) in enumerate({"train": 20, "val": 6, "test": 8}.items()):
        write_images(folder / split, count, seed=seed)
    trained = run_lamina("train", NET, "--data", folder, "--epochs", "2", "--json")
    *_, first, second, result = events(trained.stdout)
    assert "val_accuracy" in first
    assert "val_accuracy" in second
    assert not any("test" in name for event in (first, second) for name in event)
    assert "test_accuracy" in result


def test_images_without_test_are_evaluated_on_val(workplace, tmp_path):
    for split, count in (("train", 30), ("val", 10)):
        write_images(tmp_path / "halves" / split, count)
    done = run_well(
        "train", "mlp", "--data", tmp_path / "halves", "--epochs", "2", "--name", "first", "--json"
    )
    assert events(done.stdout)[-1]["val_accuracy"] == load_run("first").report.metrics["accuracy"]


def test_a_tenth_becomes_val_unless_recipe_or_share_differ(workplace, tmp_path):
    folder = write_images(tmp_path / "mine", 60)
    for words, counts in {
        "mlp": (84, 12, 24),
        "mlp --recipe article": (96, 0, 24),
        "mlp --recipe article --val 0.2": (72, 24, 24),
    }.items():
        trained = run_lamina("train", *words.split(), "--data", folder, "--epochs", "1", "--json")
        *_, epoch, result = events(trained.stdout)
        splits = json.loads((workplace / str(result["run"]) / "splits.json").read_text())["files"]
        assert tuple(len(splits.get(split, ())) for split in ("train", "val", "test")) == counts
        assert ("val_accuracy" in epoch) == bool(counts[1])
        assert result["test_accuracy"] >= 0


def test_a_data_set_that_has_changed_since_is_reported(workplace, tmp_path):
    folder = write_images(tmp_path / "mine", 20)
    run_lamina("train", NET, "--data", folder, "--epochs", "1", "--name", "mine")
    write_images(folder / "more", 1)
    for name in ("bright", "dark"):
        (folder / "more" / name / "0.png").rename(folder / name / "new.png")
        (folder / "more" / name).rmdir()
    (folder / "more").rmdir()
    evaluated = run_well("evaluate", "runs/mine")
    assert f"warning: {folder.name} is not, or no longer, the data set that" in evaluated.stderr


def test_names_that_are_not_utf8_go_through(workplace, tmp_path):
    folder = write_images(tmp_path / "mine", 20)
    # A path takes no bytes.
    os.rename(  # noqa: PTH104
        os.fsencode(folder / "dark"), os.fsencode(folder) + b"/caf\xe9"
    )
    trained = run_well("train", NET, "--data", folder, "--epochs", "1", "--name", "mine")
    assert "caf\\udce9" in trained.stdout
    run_well("evaluate", "runs/mine")


@pytest.mark.nightly  # 60,000 images are decoded
def test_the_articles_mlp_learns_real_images(whole_cifar10, workplace):
    trained = run_well("train", "mlp", "--data", "cifar10", "--epochs", "1", "--json")
    *_, epoch, result = events(trained.stdout)
    assert result["data"] == "cifar10"
    assert not any("test" in name for name in epoch)
    assert result["test_accuracy"] > 0.4


@pytest.mark.usefixtures("workplace")
def test_progress_adds_steps_and_remarks_to_json(capsys, monkeypatch):
    monkeypatch.setattr("lamina.cli.terminal.EMIT_SECONDS", 0)  # the training takes less
    words = ["train", "Flatten(), Output()", "--data", "shapes", "--size", "8", "--epochs", "2"]
    assert main([*words, "--json", "--progress", "--name", "more"]) == 0
    more = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main([*words, "--json", "--name", "plain"]) == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    added = [event for event in more if event["event"] in ("step", "progress", "remark")]
    assert [event["event"] for event in plain] == [
        event["event"] for event in more if event not in added
    ]
    step = next(event for event in added if event["event"] == "step")
    assert (step["epoch"], step["steps"]) == (1, 50)
    assert 1 <= step["step"] <= 50
    assert main([*words, "--progress"]) == 2
    assert "--progress adds events to --json. Add --json" in capsys.readouterr().err
