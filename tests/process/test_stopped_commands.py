"""Commands that are stopped, whose reader goes away or whose memory ends lose nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.cli import main
from support.commands import run_process, start_process
from support.runs import digests, start
from support.trained_runs import FLAGS, NET, copy_trained

SMALL_MEMORY = """
import resource, sys
from lamina.cli import main
from lamina.runs.run import load_run
limit, source, *arguments = sys.argv[1:]
# This first training loads all modules.
main(["train", "Flatten(), Output()", "--data", source, "--epochs", "1", "--precision", "fp32"])
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(limit), resource.RLIM_INFINITY))
sys.exit(main(arguments))
"""


def read_report(run: Path) -> dict[str, object]:
    return {
        name: value
        for name, value in json.loads((run / "report.json").read_text()).items()
        if name != "seconds"
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not trained: what it predicts does not matter here."""
    made, training = start(tmp_path_factory.mktemp("runs"))
    made.folder.save_model(training.model)
    return made.path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_stopped_prediction_leaves_nothing_half_written(workplace, run, number):
    many = workplace / "many"
    many.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(pixels).save(many / "0.png")
    for place in range(1, 2000):
        os.link(many / "0.png", many / f"{place}.png")
    (workplace / "predictions.csv").write_text("what was there before")
    words = ("predict", run, "many", "--output", "predictions.csv", "--json")
    with start_process(*words) as process:
        assert "prediction" in process.stdout.readline()
        begun = list(workplace.glob(".predictions.csv.*"))
        process.send_signal(number)
        _, err = process.communicate()
    assert len(begun) == 1
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert [file.name for file in workplace.glob("*predictions*")] == ["predictions.csv"]
    assert [file.name for file in workplace.glob(".predictions*")] == []
    assert (workplace / "predictions.csv").read_text() == "what was there before"


def test_a_signal_saves_and_says_how_to_continue(workplace, image_set, capsys):
    straight = copy_trained(image_set, "straight")
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        run = Path("runs") / number.name
        words = ("--data", image_set, "--name", number.name, *FLAGS, "--json")
        with start_process("train", NET, *words) as process:
            next(line for line in process.stdout if '"event": "epoch"' in line)
            process.send_signal(number)
            rest, printed = process.communicate()
        assert process.returncode == status, printed
        assert (
            printed.splitlines()[-1]
            == f"lamina: stopped by {number.name}; to continue, run lamina resume {run}"
        )
        assert json.loads(rest.splitlines()[-1])["event"] == "result"
        assert 0 < len(digests(run)) < 40
        assert not (run / "report.json").exists()  # which would be of another model
        capsys.readouterr()
        assert main(["runs"]) == 0
        assert "not finished" in capsys.readouterr().out
        assert main(["evaluate", str(run)]) == 0
        assert main(["resume", str(run)]) == 0
        assert digests(run) == digests(straight)
        assert read_report(run) == read_report(straight)


def test_a_reader_that_goes_away_ends_the_training(workplace, image_set):
    words = ("--data", image_set, "--name", "run", *FLAGS, "--json")
    with start_process("train", NET, *words) as process:
        next(line for line in process.stdout if '"event": "epoch"' in line)
        process.stdout.close()
        printed = process.stderr.read()
    assert process.returncode == 141, printed
    assert "Cannot write" not in printed
    assert main(["resume", "runs/run"]) == 0
    assert len(digests(Path("runs/run"))) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_out_of_memory_is_one_message_with_a_smaller_batch_to_try(workplace, image_set):
    net = (  # 2 MB an image and layer
        "Conv2d(5000, kernel_size=3), ReLU(), GlobalAvgPool(), Output()"
    )
    flags = ["--epochs", "1", "--precision", "fp32", "--batch-size", "60", "--data", str(image_set)]
    words = ("170000000", image_set, "train", net, *flags)
    with start_process(*words, code=SMALL_MEMORY) as process:
        _, printed = process.communicate()
    assert process.returncode == 2, printed
    assert (
        printed.splitlines()[-1]
        == "lamina: Out of memory on cpu with batch_size 60. Try batch_size 30."
    )


def test_without_a_network_it_says_what_to_do_at_once(workplace, image_set):
    rejected = run_process(
        "train",
        "timm:test_resnet",
        "--data",
        image_set,
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HUB_CACHE=str(workplace / "hub"),
        NO_PROXY="*",
    )
    assert rejected.returncode == 2
    url = "http://127.0.0.1:9/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    first, last = rejected.stderr.splitlines()
    assert first == f"weights: checking {url} (--weights FILE or none needs no network)"
    assert last.startswith(
        f"lamina: The weights of test_resnet.r160_in1k cannot be downloaded from {url} ("
    )
    assert last.endswith(
        "). Check the network, or use --weights FILE.safetensors, or --weights none for random"
        " weights (in Python, the argument weights of find_net)."
    )
