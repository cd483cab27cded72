"""The finals of a tuning, simulated: their test score is not chosen, and so not too good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lamina.evaluation.comparing import ScoreTables, compare_tables
from lamina.studies import finals
from lamina.studies.finals import Tuned, iter_finals
from lamina.studies.forks import Planned
from lamina.studies.study import RunSetup
from lamina.studies.trials import Trial
from support.searches import finish

IMAGES = 400
FINALISTS = finals.FINALISTS


@dataclass
class SimulatedExperiment:
    """Values of a search, with the accuracy that their runs have on average."""

    search: SimulatedSearch
    number: int
    accuracy: float
    dataset: None = None
    recipe = SimpleNamespace(seed=0)

    def with_seed(self, seed: int) -> tuple[SimulatedExperiment, int]:
        return self, seed


class SimulatedSearch:
    """A search whose runs are drawn: their accuracies on val and test share the luck of a seed."""

    title = "net:best"
    metric = "accuracy"
    seed = 0
    dataset = SimpleNamespace(test="drawn")
    setup = RunSetup()

    def __init__(
        self, generator: np.random.Generator, accuracies: list[float], seed_spread: float
    ) -> None:
        self.generator = generator
        self.seed_spread = seed_spread
        self.base, *self.others = [
            SimulatedExperiment(self, number, accuracy)
            for number, accuracy in enumerate(accuracies)
        ]
        self.diverging: set[tuple[int, int]] = set()

    def make(self, values: dict[str, float]) -> SimulatedExperiment:
        return self.others[int(values["lr"])]


def simulate_runs(planned: list[Planned], setup: object):
    """Draw the runs of a search."""
    runs = {}
    for item in planned:
        experiment, seed = item.make()
        search = experiment.search
        accuracy = experiment.accuracy + search.generator.normal(0, search.seed_spread)
        hits = {
            split: (search.generator.random(IMAGES) < accuracy).astype(float)
            for split in ("val", "test")
        }
        if (experiment.number, seed) not in search.diverging:
            runs[item.path] = SimpleNamespace(hits=hits)
    return runs
    yield


@pytest.fixture(autouse=True)
def simulated(monkeypatch):
    def judge(runs):
        scores = {
            name: np.stack([run.hits["test"] for run in group]) for name, group in runs.items()
        }
        return compare_tables(ScoreTables(scores, "accuracy", "test"))

    monkeypatch.setattr(finals, "iter_runs", simulate_runs)
    monkeypatch.setattr(finals, "judge_runs", judge)
    monkeypatch.setattr(finals, "measure_deviation", lambda runs: 0.01)
    monkeypatch.setattr(finals, "score_on", lambda run, split: float(run.hits[split].mean()))


def end(search: SimulatedSearch, folder: Path, stopped: tuple[int, ...] = ()) -> Tuned:
    trials = [
        Trial(
            trial=number,
            state="pruned" if number in stopped else "complete",
            score=0.5,
            epoch=1,
            seconds=1.0,
            error=None,
            values={"lr": float(number)},
        )
        for number in range(FINALISTS)
    ]
    return finish(iter_finals(search, folder, trials, range(FINALISTS)))


@pytest.mark.parametrize("seed_spread", [0.013, 0.03])
def test_equal_values_are_not_better_on_test(tmp_path, seed_spread):
    """With 5 seeds that chose and were tested, the bias was 0.6 and 1.7 points."""
    generator = np.random.default_rng(0)
    gains = []
    claims = 0
    for _ in range(150):
        search = SimulatedSearch(generator, [0.7] * (1 + FINALISTS), seed_spread)
        tuned = end(search, tmp_path)
        assert len(tuned.winner.scores) == 2
        assert len(tuned.test_scores) == 4
        gains.append(tuned.test_mean - 0.7)
        claims += tuned.comparison is not None and tuned.comparison.verdict == "better"
    error = np.std(gains) / len(gains) ** 0.5
    assert abs(np.mean(gains)) < 3 * error < 0.005
    assert claims <= 8  # 3.75 expected; the 97.5 % quantile of a binomial distribution


@pytest.mark.parametrize(
    ("has_base", "test", "finalists", "count"),
    [(True, "drawn", 3, 16), (False, "drawn", 3, 10), (True, None, 1, 4)],
)
def test_the_trainings_of_the_finals(has_base, test, finalists, count):
    search = SimpleNamespace(
        base=SimpleNamespace() if has_base else None, dataset=SimpleNamespace(test=test)
    )
    assert finals.count_finals(search, finalists) == count


def test_a_trial_that_was_stopped_can_win_but_has_no_luck(tmp_path):
    search = SimulatedSearch(np.random.default_rng(2), [0.5, 0.6, 0.9, 0.6], 0.0)
    tuned = end(search, tmp_path, stopped=(1,))
    assert tuned.winner.name == "trial 1"
    assert tuned.luck is None
    assert str(tuned).splitlines()[-4].startswith("best: trial 1: lr 1")


def test_who_diverges_is_not_chosen_and_later_leaves_fewer_pairs(tmp_path):
    generator = np.random.default_rng(1)
    search = SimulatedSearch(generator, [0.5, 0.9, 0.7, 0.6], 0.0)
    search.diverging = {(1, 2)}  # the best values, with a seed that chooses
    tuned = end(search, tmp_path)
    assert tuned.winner.name == "trial 1"
    assert len(tuned.finalists) == 3
    search.diverging = {(1, 5)}  # with a fresh seed
    tuned = end(search, tmp_path)
    assert tuned.winner.name == "trial 0"
    assert len(tuned.test_scores) == tuned.comparison.seeds == 3
    assert "mean of 3 fresh seeds; 1 more diverged (standard deviation" in str(tuned)
