"""lamina train within a time, with and without a net."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from lamina import Preparation, load_data, load_run, zoo
from lamina.cli.session import play
from lamina.cli.terminal import Terminal
from lamina.evaluation.report import Report
from support.commands import (
    events,
    run_from_now,
    run_refused,
    run_well,
    start_process,
    train_once,
)
from support.images import write_images


def test_the_ladder_grows():
    sizes = [zoo.load_net(name).with_outputs(10).multiply_adds((3, 32, 32)) for name in zoo.LADDER]
    assert sizes == sorted(sizes)
    assert set(zoo.LADDER) <= set(zoo.NAMES)


@pytest.mark.usefixtures("ticking_clock")
def test_a_net_that_was_named_is_trained_within_a_time(workplace, image_set):
    trained = run_from_now(
        20, "train", "Flatten(), Output()", "--data", image_set, "--name", "brief", "--json"
    )
    assert trained.returncode == 0, trained.stderr
    printed = events(trained.stdout)
    assert re.search(r"time: \d+ s → about [\d,]+ epochs? of", trained.stderr)
    epochs = [event for event in printed if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == list(range(1, len(epochs) + 1))
    assert [event["event"] for event in printed].count("cooldown") == 1
    assert epochs[0]["epochs"] is None  # the end was not decided yet
    assert printed[-1]["epochs_done"] == printed[-1]["epochs"] == len(epochs)
    assert printed[-1]["event"] == "result"


def test_the_first_interrupt_of_a_training_with_a_time_limit_finishes_it(workplace, image_set):
    net = "Flatten(), Linear(30), ReLU(), Output()"
    words = ("--data", image_set, "--time", "120s", "--name", "asked", "--json")
    with start_process("train", net, *words) as process:
        next(event for event in map(json.loads, process.stdout) if event["event"] == "epoch")
        process.send_signal(signal.SIGINT)
        rest, printed = process.communicate()
    assert process.returncode == 0, printed
    (cooldown,) = (event for event in events(rest) if event["event"] == "cooldown")
    assert cooldown["reason"] == "finishing on request"
    assert "; Ctrl-C again stops at once" in printed
    result = events(rest)[-1]
    assert (result["stopped_by"], result["epochs_done"]) == (None, result["epochs"])
    assert result["test_accuracy"] >= 0.5
    assert load_run("runs/asked").is_finished


def test_an_interrupt_while_an_epoch_is_saved_finishes_the_training(workplace, image_set):
    run = load_run(train_once("mlp", image_set, "--epochs", "4", "--device", "cpu"))
    finish = threading.Event()

    def train() -> Generator[Report, None, None]:
        assert run.report is not None
        yield run.report
        signal.raise_signal(signal.SIGINT)

    terminal = Terminal(as_json=True, emits_progress=True)
    _, received = play(train(), terminal, lambda *_: None, run=run, finish=finish)
    assert finish.is_set()
    assert received is None


@pytest.mark.usefixtures("ticking_clock")
def test_without_a_net_one_is_chosen_trained_evaluated_and_recorded_with_what_was_considered(
    workplace,
):
    generator = np.random.default_rng(0)
    bright = np.arange(120) % 2
    x = (generator.integers(0, 100, (120, 8, 8)) + 120 * bright[:, None, None]).astype(np.uint8)
    np.savez("digits.npz", x=x, y=bright)
    trained = run_from_now(
        20, "train", "--data", "digits.npz", "--no-pretrained", "--name", "mine", "--json"
    )
    assert trained.returncode == 0, trained.stderr
    result = events(trained.stdout)[-1]
    assert result["net"] in zoo.LADDER
    # The nets need at least 16 px.
    chosen = (
        rf"^chosen: {result['net']} at 16 px \(the images are 8 px\), about \d+ epochs? in \d+ s "
    )
    assert re.search(chosen, trained.stderr, re.MULTILINE)
    assert result["size_px"] == 16
    assert result["test_accuracy"] == 1
    assert result["baseline"]["value"] <= 0.6
    assert re.match(r"time: \d+ s for the whole command \(as requested\)\n", trained.stderr)
    record = load_run("runs/mine").record
    (chosen,) = (candidate for candidate in record.considered if candidate.verdict == "chosen")
    assert (chosen.net_name, chosen.side_px) == (result["net"], 16)
    assert all(candidate.seconds > 0 for candidate in record.considered)
    assert re.search(r"^considered: .* s: chosen\)\n", trained.stderr, re.MULTILINE)
    tried = [event for event in events(trained.stdout) if event["event"] == "trying"]
    assert (tried[0]["net"], tried[0]["side_px"]) == ("cnn-s", 16)


def test_a_body_is_chosen_from_the_weights_at_hand_and_compared_with_a_trial_from_scratch(
    workplace,
):
    write_images(workplace / "many", 40)
    words = ("--data", "many", "--time", "120s", "--name", "mine", "--json")
    printed = []
    with start_process("train", *words) as process:
        for event in map(json.loads, process.stdout):
            printed.append(event)
            if event["event"] == "epoch":
                break
        process.send_signal(signal.SIGINT)  # finish
        rest, told = process.communicate()
    assert process.returncode == 0, told
    assert told.startswith("time: 120 s for the whole command (as requested)\n")
    *printed, result = printed + events(rest)
    *_, considered = (event for event in printed if event["event"] == "considered")
    assert [candidate["verdict"] for candidate in considered["candidates"]].count("chosen") == 1
    nets = {candidate["net_name"] for candidate in considered["candidates"]}
    assert "timm:tf_efficientnet_lite0.in1k" in nets
    (fit,) = (event for event in printed if event["event"] == "head_fit")
    assert fit["accuracy"] > 0.9
    assert result["run"] == "runs/mine"
    assert result["test_accuracy"] > 0.7  # how long it trains depends on the machine
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]
    run = load_run("runs/mine")
    assert len(run.record.considered) == len(considered["candidates"])
    assert run.report.metrics["accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_before_any_training_nothing_is_left(workplace, image_set, number):
    words = ("--data", image_set, "--time", "60s", "--json")
    with start_process("train", *words) as process:
        assert process.stderr.readline().startswith("time: 60 s")
        process.send_signal(number)
        rest, printed = process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in printed
    told = ["interrupted"] if number == signal.SIGINT else []
    assert [event["error"] for event in events(rest)] == told
    assert not list(workplace.glob("runs/*"))


def test_epochs_that_are_given_have_no_limit(workplace, image_set):
    trained = run_well("train", "--data", image_set, "--epochs", "2", "--no-pretrained", "--json")
    assert trained.stderr.startswith(
        "time: no limit, because --epochs is given; lamina chooses a net and an image size that"
        " would train in about 300 s\n"
    )
    printed = events(trained.stdout)
    assert [event["epoch"] for event in printed if event["event"] == "epoch"] == [1, 2]
    assert printed[-1]["test_accuracy"] >= 0.5


SLOWING = """
import time
from torch import nn

class Slowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.linear, self.calls = nn.Flatten(), nn.Linear(432, 2), 0

    def forward(self, images):
        self.calls += self.training
        for _ in range(10 if self.calls > 40 else 0):  # it was timed in fewer calls
            time.perf_counter()  # which takes 30 ms
        return self.linear(self.flatten(images))
"""


@pytest.mark.usefixtures("ticking_clock")
def test_a_module_of_ones_own_is_evaluated_at_the_time_limit_and_its_file_is_in_the_advice(
    workplace, image_set
):
    Path("mine.py").write_text(SLOWING)
    words = ("--data", image_set, "--name", "slow", "--schedule", "linear", "--json")
    trained = run_from_now(60, "train", "mine.py", *words)
    assert trained.returncode == 0, trained.stderr
    *_, ended, result = events(trained.stdout)
    assert ended["event"] == "early_end"
    assert ended["run"] == "runs/slow"
    done, planned = result["epochs_done"], result["epochs"]
    assert ended["reason"] == f"time limit reached after {done} of {planned} epochs"
    command = f"lamina resume runs/slow --net {workplace / 'mine.py'}"
    advice = f"\nepochs: trained {done:,} of {planned:,}; to train the rest, run {command}\n"
    assert advice in trained.stderr
    assert result["test_accuracy"] >= 0
    assert load_run("runs/slow").report.split == "test"


@pytest.mark.usefixtures("ticking_clock")
def test_many_images_in_little_time_are_shrunk_rather_than_refused(workplace):
    """As many as no net of the ladder can see once in the time."""
    x, y = np.random.default_rng(0).integers(0, 256, (30_100, 32, 32), np.uint8), np.arange(30_100)
    train, test = slice(30_000), slice(30_000, None)
    arrays = {
        "x_train": x[train],
        "y_train": y[train] % 2,
        "x_test": x[test],
        "y_test": y[test] % 2,
    }
    np.savez("many.npz", **arrays)
    load_data("many.npz", Preparation(val_fraction=0))  # into the cache
    words = ("--data", "many.npz", "--val", "0", "--no-pretrained", "--json")
    trained = run_from_now(3, "train", *words)
    assert trained.returncode == 0, trained.stderr
    assert events(trained.stdout)[-1]["size_px"] == 16


@pytest.mark.parametrize("net", [[], ["mlp"], ["mlp", "--schedule", "cosine"]])
def test_a_time_limit_always_leaves_a_model(workplace, image_set, net):
    words = ("--data", image_set, "--name", "brief", "--time", "0.1s")
    trained = run_well("train", *net, *words)
    assert re.search(r"warning: \S+ takes .* but only 0\.0 s are left", trained.stderr)
    assert load_run("runs/brief").report.split == "test"


def test_a_wrong_name_is_reported_before_the_data(workplace):
    for several in ([], ["--folds", "3"], ["--seeds", "2"]):
        words = ("mlp", "--data", "nowhere", "--name", "../a", *several)
        assert "name is '../a'" in run_refused("train", *words)


NO_EPOCHS = "--time and --epochs both set the number of epochs. Use only one of them."
NO_TIME = "--time is 'soon'; it must be a number followed by s, m or h. Use --time 5m."
NO_NET = "--recipe requires a net. Add NET, as in lamina train cnn-s --recipe best."
NO_HEAD = "--head requires a net. Add NET, as in lamina train cnn-s --head fitted."
GIVEN = (
    "A pretrained net is chosen to suit a time limit, but the epochs are given. Leave out"
    " epochs, or name the net: timm:tf_efficientnet_lite0.in1k."
)
FROM = "lamina chooses no net, because NET is mlp. Leave out --no-pretrained."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--recipe best", NO_NET),
        ("mlp --time 1m --epochs=3", NO_EPOCHS),
        ("--time 30s --epochs 3", NO_EPOCHS),
        ("mlp --time soon", NO_TIME),
        ("mlp --no-pretrained", FROM),
        ("mlp --pretrained", FROM.replace("--no-", "--")),
        ("--pretrained --epochs 3", GIVEN),
        ("--head fitted", NO_HEAD),
    ],
)
def test_what_does_not_go_with_a_time(workplace, arguments, message):
    printed = run_refused("train", *arguments.split(), "--data", "shapes")
    assert printed.splitlines()[-1] == f"lamina: {message}"
