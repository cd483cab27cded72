"""``lamina train NET --seeds N``: several runs that differ in their seed, and the mean of their scores."""

from __future__ import annotations

import json
import statistics
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from commands import events, run_lamina

from lamina import Epoch, LaminaError, load_run
from lamina.cli import main
from lamina.evaluation.intervals import mean_interval
from lamina.studies.events import Seed, Seeds, Started
from lamina.studies.seeds import iter_seeds
from small_runs import DATA, NET, RECIPE

NET_TEXT = "Flatten(), Output()"


def test_seeds_are_trained_scored_averaged_and_more_can_follow(workplace, pictures):
    train = ("train", NET_TEXT, "--data", pictures, "--epochs", "1", "--lr", "0.0001", "--seed", "5", "--name", "first")
    done = run_lamina(*train, "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    *rest, last = events(done.stdout)
    names = ["runs/first-seed5", "runs/first-seed6"]
    reports = [load_run(name).report for name in names]
    scores = [report.accuracy for report in reports]
    expected = mean_interval(scores)
    assert last == {
        "event": "seeds", "scores": scores, "mean": statistics.fmean(scores), "interval": [expected.low, expected.high],
        "metric": "accuracy", "split": "test", "seeds": [5, 6], "runs": names,
    }  # fmt: skip
    assert [(one["run"], one["score"]) for one in rest if one["event"] == "seed"] == list(
        zip(names, scores, strict=True)
    )
    first, second = (load_run(name).record for name in names)
    assert replace(first.recipe, seed=6) == second.recipe
    assert first.data == second.data
    assert (
        load_run(names[0]).folder.history.epochs()[0]["weights"]
        != load_run(names[1]).folder.history.epochs()[0]["weights"]
    )

    again = run_lamina(*train, "--seeds", "3")
    assert again.returncode == 0, again.stderr
    assert [path.name for path in sorted(Path("runs").iterdir())] == ["first-seed5", "first-seed6", "first-seed7"]
    assert again.stdout.count("epoch 1/1") == 1  # only the third was trained
    assert f"seed 5: test accuracy {100 * scores[0]:.2f} % (runs/first-seed5)" in again.stdout.splitlines()
    assert "95 % interval of the mean" in again.stdout

    other = run_lamina(*train, "--seeds", "3", "--batch-size", "7")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1] == (
        "lamina: There is a run runs/first-seed5 already, of another net, recipe or data set. Choose another name, or "
        "delete that folder."
    )


def test_one_seed_has_no_interval_and_runs_without_a_name_get_a_free_one(tmp_path):
    for number in (1, 2):
        *_, last = iter_seeds(NET, DATA, RECIPE, seeds=1, runs_dir=tmp_path)
        assert isinstance(last, Seeds)
        assert (last.mean, last.interval) == (last.scores[0], None)
        assert str(last).endswith("(one run gives no interval)")
        assert last.runs[0].run.name.endswith(f"-net-{number}-seed7")


def test_after_an_interruption_the_rest_is_trained_to_the_same_weights(tmp_path):
    *_, straight = iter_seeds(NET, DATA, RECIPE, seeds=2, name="straight", runs_dir=tmp_path)
    with closing(iter_seeds(NET, DATA, RECIPE, seeds=2, name="cut", runs_dir=tmp_path)) as begun:
        started = []
        for event in begun:
            started += [event.run.path.name] if isinstance(event, Started) else []
            if isinstance(event, Epoch) and len(started) == 2:
                break
    assert started == ["cut-seed7", "cut-seed8"]
    again = list(iter_seeds(NET, DATA, RECIPE, seeds=2, name="cut", runs_dir=tmp_path))
    assert [event.epoch for event in again if isinstance(event, Epoch)] == [2]
    assert again[-1].scores == straight.scores
    for one, other in zip(straight.runs, again[-1].runs, strict=True):
        first, second = (load_run(path).folder.history.epochs()[-1]["weights"] for path in (one.run, other.run))
        assert first == second


def test_a_run_without_a_score_leaves_no_mean():
    runs = (Seed(0, Path("a"), "test", "accuracy", 0.5), Seed(1, Path("b"), None, None, None))
    found = Seeds(runs, None, None)
    assert json.loads(json.dumps(found.to_json()))["scores"] == [0.5, None]
    assert str(found).splitlines() == [
        "seed 0: test accuracy 50.00 % (a)", "seed 1: no score (b)", "no mean, because these seeds have no score: 1"
    ]  # fmt: skip


def test_seeds_need_images_to_be_scored_on(tmp_path):
    with pytest.raises(LaminaError, match=r"^pets has no val or test images to score a run on\. Set some aside with"):
        next(iter_seeds(NET, replace(DATA, test=None), RECIPE, seeds=2, runs_dir=tmp_path))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --seeds 3", "--seeds needs a net, as in: lamina train cnn-s --seeds 3. Each seed on its own might "
         "choose another net."),
        ("train mlp --seeds 3 --time 5s", "--time sets the epochs by measuring, so that runs with --seeds would differ "
         "in more than their seed. Use --epochs instead."),
        ("train mlp --data shapes --seeds 0", "seeds was 0, but must be at least 1."),
    ],
)  # fmt: skip
def test_what_does_not_go_with_seeds(workplace, capsys, command, message):
    assert main(command.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"
    assert not Path("runs").exists()
