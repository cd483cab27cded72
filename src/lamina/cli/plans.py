"""What to train and how, in the time that there is: the plan of a net that was named, or of one that is chosen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.cli import STARTED
from lamina.cli.choices import NetChoice, choice_of_timm, choose_data, choose_net
from lamina.cli.session import Outcome, start, train
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.data.load import check_learnable
from lamina.data.preparation import Preparation
from lamina.errors import NetError
from lamina.text import format_table
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data import Dataset
    from lamina.evaluation.reports import Score
    from lamina.runs.choosing import Candidate, Clock, Considered

DEFAULT_SECONDS = 300.0
"""For the whole command, where net and time are left to lamina."""
FEW_IMAGES = 20_000
"""Up to so many, a pretrained net is worth a remark where there is none."""
LEAST_TRIAL_SECONDS = 3.0
"""A shorter trial would show nothing."""


@dataclass(frozen=True)
class Settings:
    """How a run is kept, whatever is trained."""

    device: str
    runs_dir: Path
    name: str | None
    rewind_on_nan: bool
    save_every_seconds: float


@dataclass(frozen=True)
class Plan:
    """What to train, how, and on what.

    Attributes:
        train_until_seconds: since the start of the process, when the steps must end; ``None`` for no limit.
        considered: the candidates that it was chosen from.
        is_size_chosen: whether the pictures' size is lamina's choice.
    """

    net: NetChoice
    recipe: Recipe
    dataset: Dataset
    train_until_seconds: float | None = None
    considered: tuple[Considered, ...] = ()
    is_size_chosen: bool = False


def train_plan(plan: Plan, settings: Settings, terminal: Terminal, *, evaluates_test: bool = True) -> Outcome:
    """Start the run and train it."""
    recipe = plan.recipe
    always = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "optimizer", "lr", "seed")}
    terminal.remark("recipe: " + ", ".join(f"{name} {value}" for name, value in (always | recipe.changes()).items()))
    run = start(
        plan.net, recipe, plan.dataset, terminal, device=settings.device, runs_dir=settings.runs_dir,
        name=settings.name, rewind_on_nan=settings.rewind_on_nan, considered=plan.considered,
        is_size_chosen=plan.is_size_chosen,
    )  # fmt: skip
    return train(
        run, plan.dataset, terminal, save_every_seconds=settings.save_every_seconds,
        until_seconds=plan.train_until_seconds, evaluates_test=evaluates_test,
    )  # fmt: skip


def fit_time(plan: Plan, seconds: float, device: str, terminal: Terminal) -> Plan:
    """The plan with as many epochs as fit into ``seconds`` from the start of the process.

    Raises:
        RecipeError: not even one does.
    """
    from lamina.runs.choosing import check_one_epoch, start_clock
    from lamina.training.task import task_of
    from lamina.training.timing import measure_pace

    dataset, recipe = plan.dataset, plan.recipe
    clock = start_clock(dataset, lambda: seconds - (time.perf_counter() - STARTED))
    net = plan.net.make(recipe.seed, dataset.train.shape, task_of(dataset.train).outputs)
    pace = measure_pace(net, dataset.train, recipe, device)
    check_one_epoch(plan.net.name, recipe, pace, clock)
    recipe = clock.fit(pace, recipe)
    epoch_seconds = (clock.total_seconds(pace, recipe) - pace.start_seconds) / recipe.epochs
    terminal.remark(f"time: {seconds:.0f} s → {recipe.epochs} epochs of {epoch_seconds:.1f} s each")
    return replace(plan, recipe=recipe, train_until_seconds=seconds - clock.ending_seconds(pace))


@dataclass(frozen=True)
class Request:
    """What lamina is to choose a net for: the data, what was given, and the time from the start of the process."""

    source: str | None
    preparation: Preparation
    given: dict[str, Any]
    seconds: float
    settings: Settings
    terminal: Terminal

    def load(self, side_px: int | None) -> Dataset:
        """The data set, its pictures squares of that side, or as they are by default."""
        return choose_data(self.source, replace(self.preparation, size_px=side_px), self.terminal)

    def load_for(self, candidate: Candidate, dataset: Dataset) -> Dataset:
        """The data set at the size of a candidate."""
        return dataset if min(dataset.train.shape[1:]) == candidate.side_px else self.load(candidate.side_px)

    def seconds_left(self) -> float:
        """Of the time, now."""
        return self.seconds - (time.perf_counter() - STARTED)


def train_chosen(request: Request, *, from_scratch: bool) -> Outcome:
    """Choose net, size and recipe for the data, this machine and the time, and train within it."""
    from lamina.runs.choosing import choose_pretrained, spend, start_clock
    from lamina.training.pretrained import find_at_hand

    terminal, settings = request.terminal, request.settings
    dataset = request.load(request.preparation.size_px)
    check_learnable(dataset)
    clock = start_clock(dataset, request.seconds_left)
    net = None
    if not from_scratch:
        try:
            net = find_at_hand()
        except NetError as error:
            terminal.remark(f"warning: {error} Training from scratch.")
    if net is None:
        if not from_scratch and len(dataset.train) <= FEW_IMAGES:
            terminal.remark(
                "pretrained: no weights at hand; with so few pictures they help much: pip install 'lamina[pretrained]'"
            )
        return train_plan(plan_from_scratch(request, dataset, clock), settings, terminal)
    stages = choose_pretrained(
        net, dataset, clock, request.given, side_px=request.preparation.size_px, device=settings.device
    )
    if not stages:
        terminal.remark(f"pretrained: no time for {net.net_name} on {len(dataset.train):,} images")
        return train_plan(plan_from_scratch(request, dataset, clock), settings, terminal)
    if dataset.val is None:
        terminal.remark("val: too few images to compare candidates on")
        return train_plan(plan_candidate(request, spend(stages[-1], clock), dataset, clock), settings, terminal)
    return train_stages(request, stages, dataset, clock)


def plan_from_scratch(request: Request, dataset: Dataset, clock: Clock) -> Plan:
    """The plan of the net and size that the ladder has time for."""
    from lamina.runs.choosing import choose_from_scratch, find_sides, propose

    side_px = request.preparation.size_px
    candidates = propose(dataset, find_sides(dataset) if side_px is None else (side_px,), request.given)
    chosen, considered = choose_from_scratch(
        dataset, candidates, clock, are_epochs_given="epochs" in request.given, device=request.settings.device
    )
    print_considered(considered, request.terminal)
    return plan_candidate(request, chosen, dataset, clock, considered)


def plan_candidate(
    request: Request, candidate: Candidate, dataset: Dataset, clock: Clock, considered: tuple[Considered, ...] = ()
) -> Plan:
    """The plan of a candidate, which ends in time."""
    from lamina.training.pretrained import TimmNet

    dataset = request.load_for(candidate, dataset)
    net = candidate.net
    choice = choice_of_timm(net) if isinstance(net, TimmNet) else choose_net(candidate.net_name, request.terminal)
    until_seconds = request.seconds - clock.ending_seconds(candidate.pace)
    return Plan(choice, candidate.recipe, dataset, until_seconds, considered, is_size_chosen=True)


def train_stages(request: Request, stages: Sequence[Candidate], dataset: Dataset, clock: Clock) -> Outcome:
    """A head on frozen features first; then all layers, or a net from scratch if its trial does better on ``val``.

    The better of the two by ``val`` is evaluated on ``test`` and kept.
    """
    from lamina.runs.choosing import TRIAL_FRACTION, choose_penalty, is_better, spend

    terminal, settings = request.terminal, request.settings
    frozen, *tuned = stages
    has_time = bool(tuned) or clock.left_to_train(frozen.pace) > LEAST_TRIAL_SECONDS
    plan = plan_candidate(request, frozen, dataset, clock)
    if "weight_decay" not in request.given:
        chosen = choose_penalty(frozen, plan.dataset.train, TRIAL_FRACTION * request.seconds)
        plan = replace(plan, recipe=chosen.recipe)
    first = train_plan(plan, settings, terminal, evaluates_test=not has_time)
    if first.stopped_by is not None or not has_time:
        return first
    try:
        trial = None if first.val is None else try_from_scratch(request, dataset)
    except KeyboardInterrupt:
        terminal.remark(f"the best so far is {first.run.path}")
        raise
    if trial is not None and is_better(trial[1], first.val):
        plan = plan_from_scratch(request, dataset, clock)
    elif tuned and clock.left_to_train(tuned[0].pace) > 0:
        plan = plan_candidate(request, spend(tuned[0], clock), dataset, clock)
    else:
        return finish(first, None, trial, settings.name, terminal)
    second = train_plan(plan, replace(settings, name=None), terminal, evaluates_test=False)
    if second.stopped_by is None:
        return finish(first, second, trial, settings.name, terminal)
    terminal.remark(
        f"the best so far is {first.run.path}; the training that was stopped continues with: "
        f"lamina resume {second.run.path}"
    )
    return replace(second, run=first.run)


def try_from_scratch(request: Request, dataset: Dataset) -> tuple[Considered, Score] | None:
    """The smallest net trained for a moment, where a tenth of the time is a moment, and its score on ``val``."""
    from lamina.runs.choosing import TRIAL_FRACTION, Considered, find_sides, propose, try_briefly

    seconds = TRIAL_FRACTION * request.seconds
    if seconds < LEAST_TRIAL_SECONDS:
        return None
    side_px = request.preparation.size_px
    candidate = propose(dataset, find_sides(dataset)[:1] if side_px is None else (side_px,), request.given)[0]
    began = time.perf_counter()
    epochs, score = try_briefly(candidate, request.load_for(candidate, dataset), seconds, request.settings.device)
    if score is None:
        return None
    spent = round(time.perf_counter() - began, 1)
    return Considered(candidate.net_name, candidate.side_px, epochs, spent, "trial", score), score


def finish(
    first: Outcome, second: Outcome | None, trial: tuple[Considered, Score] | None, name: str | None, terminal: Terminal
) -> Outcome:
    """Keep the better run by ``val``, with what was considered, and evaluate it on ``test``; the other is removed."""
    from lamina.runs.choosing import is_better

    best, other = first, second
    if second is not None and not is_better(first.val, second.val):
        best, other = second, first
    considered = [] if trial is None else [trial[0]]
    considered += [_remember(one, "chosen" if one is best else "less accurate") for one in (first, second) if one]
    print_considered(considered, terminal)
    run = best.run.replace_record(replace(best.run.record, considered=tuple(considered)))
    if other is not None:
        shutil.rmtree(other.run.path)
    if name is not None and run.path.name != name:
        run = replace(run, path=run.path.rename(run.path.with_name(name)))
    with warnings_as_remarks(terminal):
        report = run.evaluate(data=best.dataset)
    return replace(best, run=run, report=report)


def print_considered(considered: Sequence[Considered], terminal: Terminal) -> None:
    """The candidates, as a short table, and as an event."""
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


def _remember(outcome: Outcome, verdict: str) -> Considered:
    from lamina.runs.choosing import Considered

    record, epochs = outcome.run.record, len(outcome.run.history.epochs())
    return Considered(
        record.net_name, min(record.in_shape[1:]), epochs, round(outcome.seconds, 1), verdict, outcome.val
    )
