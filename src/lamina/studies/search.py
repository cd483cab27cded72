"""The search of a tuning: its net, recipe, ranges and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lamina.data import Dataset
from lamina.data.splits import Split
from lamina.errors import DataError, NetError, NotFiniteError, RecipeError, plural
from lamina.evaluation.paired import score_images
from lamina.files import damaged
from lamina.nets import Net
from lamina.runs.run import Run, list_needed_parts
from lamina.runs.start import NetChoice, shorten_net_name
from lamina.studies.experiment import Decision, Experiment, Request, fit_experiment
from lamina.studies.space import (
    Range,
    contains,
    import_optuna,
    insert_sizes,
    list_ends,
    parse_settings,
    parse_sizes,
)
from lamina.studies.study import (
    CODE,
    RunSetup,
    describe_code,
    describe_net,
    describe_recipe,
    name_study,
    without_device,
)
from lamina.studies.trials import REMEDY, describe_values
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts, describe_part, digest_source
from lamina.training.events import Event
from lamina.training.loop import Training
from lamina.training.recipe import Recipe, overlay
from lamina.training.task import task_of


@dataclass(frozen=True)
class Search:
    """What is searched: a net and a recipe, the ranges of their values, and the images."""

    # a name; layers, perhaps with names of sizes; custom code; or a function of an Optuna trial
    net: str | NetChoice | Callable[[Any], Net]
    recipe: Recipe | str | None  # ``None`` for the first of the net
    fixed: Mapping[str, Any]  # settings of the recipe that are not searched
    over: Mapping[str, str]  # ranges of settings
    net_over: Mapping[str, str]  # ranges of sizes
    dataset: Dataset
    choose: Callable[[Any], NetChoice]  # finds a net by name
    setup: RunSetup = field(default_factory=RunSetup)  # of the runs
    parts: Parts = NO_PARTS
    given_name: str | None = None

    def check(self) -> None:
        """Raise ``LaminaError`` if there is nothing to search, or no ``val`` to compare on."""
        if not (self.over or self.net_over or callable(self.net)):
            raise RecipeError(
                "There is nothing to search. Name settings and their ranges, as in"
                " lr=1e-4..1e-1:log."
            )
        if self.dataset.val is None:
            how = "--val 0.1 (in Python, Preparation(val_fraction=0.1))"
            raise DataError(
                f"{self.dataset.name} has no val split to compare trials on. Draw one with {how}."
            )
        self._check_names(self.fixed, "given and searched")
        self._check_names(self.net_over, "a setting and a size")
        experiment = self.example[0]
        images = self.dataset.train
        for name in self.over:
            for value in list_ends(self.ranges[name]):  # which the net may not be able to use
                recipe = overlay(experiment.recipe, {**self.fixed, name: value})
                net = experiment.net.make(recipe.seed, images.shape, task_of(images).outputs)
                Training(net, images, recipe, parts=self.parts)

    def _check_names(self, others: Mapping[str, Any], what: str) -> None:
        if twice := sorted(self.over.keys() & others.keys()):
            raise RecipeError(f"{twice[0]} is both {what}. Leave out or rename one of them.")

    @property
    def base(self) -> Experiment | None:
        """The experiment without searched values; ``None`` if its net depends on them."""
        return None if callable(self.net) or self.net_over else self.example[0]

    def make(self, values: Mapping[str, Any], trial: Any = None) -> Experiment:
        """The experiment with searched values, and with the fixed settings.

        A function as net draws from ``trial``; without one, it gets the same values again.
        """
        for name, span in self.ranges.items():
            if not contains(span, values.get(name)):
                problem = f"{name} is {values.get(name)!r}, which is not in its range"
                raise damaged("A trial in the storage", problem, REMEDY)
        sizes = {name: values[name] for name in self.net_over}
        settings = {name: values[name] for name in self.over}
        experiment = self.base
        if experiment is None:
            trial = trial or import_optuna().trial.FixedTrial(dict(values))
            experiment, _ = self._fit(trial, sizes)
        return replace(experiment, recipe=overlay(experiment.recipe, {**self.fixed, **settings}))

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """The ranges of settings and sizes, without those that a function draws from."""
        return {**parse_sizes(self.net_over, str(self.net)), **parse_settings(self.over)}

    @cached_property
    def example(self) -> tuple[Experiment, list[Decision]]:
        """The experiment with the first sizes and no searched settings, and its recipe's fit."""
        optuna = import_optuna()
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trial = study.ask({name: self.ranges[name] for name in self.net_over})
        return self._fit(trial, trial.params)

    def _fit(self, trial: Any, sizes: Mapping[str, Any]) -> tuple[Experiment, list[Decision]]:
        """An experiment without ``test``, which no trial reads."""
        net: Any = self.net
        if isinstance(net, str):
            net = insert_sizes(net, sizes)
        elif callable(net):
            net = net(trial)
            if not isinstance(net, str | Net):
                raise NetError(
                    f"The function returned {type(net).__name__}, not a Net. Return Net(…), whose"
                    " first weights follow from the seed of each run."
                )
        untested = replace(self.dataset, test=None)
        request = Request(self.choose(net), self.recipe, self.fixed, parts=self.parts)
        experiment, decisions = fit_experiment(request, untested)
        # One metric for all trials, even if class weights are searched.
        metric = experiment.recipe.find_metric(self.dataset.train.kind)
        return replace(experiment, recipe=overlay(experiment.recipe, {"metric": metric})), decisions

    def to_json(self) -> dict[str, Any]:
        """The settings of the study, which all of its workers must share."""
        experiment = self.example[0]
        net = None
        if isinstance(self.net, str):
            net = Path(self.net).name if ".py" in self.net else self.net  # in any folder
        return {
            "net": net,
            "function": describe_part(self.net) if callable(self.net) else None,
            "file": describe_net(experiment.net)["file"],
            "parts": list_needed_parts(self.parts.describe()),
            CODE: self.code,
            "recipe": describe_recipe(self.recipe),
            "over": dict(self.over),
            "net_over": dict(self.net_over),
            "given": without_device(self.fixed),
            "fingerprint": self.dataset.fingerprint,
            "preparation": self.dataset.preparation.to_json(),
            "metric": self.metric,
            "seed": self.seed,
            "epochs": None if "epochs" in self.over else experiment.recipe.epochs,
        }

    @cached_property
    def code(self) -> dict[str, str]:
        """The digests of custom functions, including one that takes an Optuna trial."""
        net = self.example[0].net
        code = describe_code(net, self.parts, self.dataset.train, self.metric)
        if callable(self.net):
            code["net"] = digest_source(self.net)
        return code

    @property
    def title(self) -> str:
        """The name of the recipe itself, without searched values."""
        if self.given_name is not None:
            return self.given_name
        net = getattr(self.net, "__name__", str(self.net))
        return f"{net}:{self.recipe}" if self.recipe else net

    @property
    def seed(self) -> int:
        """The seed of all trials."""
        return self.example[0].recipe.seed

    @property
    def metric(self) -> str:
        """The name of the score that trials are compared by."""
        return str(self.example[0].recipe.metric)

    @property
    def name(self) -> str:
        """A name that all workers of a search derive, each from its own command."""
        net = shorten_net_name(str(self.example[0].net.name))[:30]
        return name_study(f"tune-{net}", self.to_json())

    def __str__(self) -> str:
        ranges = ", ".join(
            f"{name} {text}" for name, text in {**self.over, **self.net_over}.items()
        )
        return f"{self.title}, {ranges or 'values that the function draws'}"


@dataclass(frozen=True)
class Tried(Event):
    """The end of a trial, and the progress of the search, without the finals."""

    trial: int
    values: Mapping[str, Any]
    score: Score | None  # after its last epoch
    end: str
    run: str  # empty if the values of an earlier trial were not trained again
    done: int  # trials that have ended
    best: Score | None

    def __str__(self) -> str:
        parts = [f"trial {self.trial}: {describe_values(self.values)}: "]
        if self.score is not None:
            parts.append(f"val {self.score}, ")
        parts.append(f"{self.end}; {plural(self.done, 'trial', 'trials')} done")
        if self.best is not None:
            parts.append(f", best {self.best.format(self.best.value)}")
        return "".join(parts)


def score_on(run: Run, split: Split) -> float:
    """The score of a run's final weights on a split."""
    score = float(score_images(run.task, run.outputs[split]).mean())
    if not math.isfinite(score):
        raise NotFiniteError(f"The score on {split} is {score}.")
    return score
