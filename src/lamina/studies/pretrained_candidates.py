"""Pretrained nets as candidates: body and size by measured pace, and a trial from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Int64

from lamina.data import Dataset, Images
from lamina.data.load import resize_images
from lamina.errors import LaminaError
from lamina.insight.confusions import measure_losses
from lamina.runs.limit import TimeLimit
from lamina.runs.nets_by_name import choice_of_timm, find_own_side
from lamina.runs.record import Considered
from lamina.studies.candidates import CHOSEN, fit_candidate, is_of, to_considered
from lamina.studies.experiment import ENDS, Candidate, Deadline, open_end
from lamina.studies.study_events import ScratchTrial
from lamina.training.events import HeadFit
from lamina.training.head import deal_folds
from lamina.training.loop import Training
from lamina.training.model import build_model
from lamina.training.precision import count_multiply_adds
from lamina.training.pretrained import TimmNet
from lamina.training.task import task_of

SIDES_PX = (64, 96, 128, 160, 192, 224)
MOST_ENLARGEMENT = 4
"""Image sizes to consider for a pretrained net. Enlarging smaller images helps, up to four times
their size."""
TIMED_SIDE_PX = 96
ENOUGH_PX = 128
"""Up to this side, a larger image is worth more than a larger body, and above it less."""
TUNED_EPOCHS, TUNED_EPOCHS_ABOVE = 0.25, 2.0
"""Lower limits of the epochs that train all layers, up to ``ENOUGH_PX`` and above it; with less
time, a smaller body or image is better."""
LONG_FRACTION = 0.1
"""The final evaluation is timed at the chosen size if it seems to take this fraction of the time
limit."""
TRIAL_FRACTION, LEAST_TRIAL_SECONDS = 0.1, 2.0
"""Fraction of the time limit for a trial from scratch beside a pretrained net, and its lower
limit."""
MOST_HELD_OUT = 1_000  # images to compare a trial with a fitted head on


def choose_body(
    nets: Sequence[TimmNet], dataset: Dataset, deadline: Deadline, settings: Mapping[str, Any]
) -> tuple[Candidate | None, tuple[Considered, ...]]:
    """The best body and image size that fit into the time limit, if any, and all considered."""
    choices = [choice_of_timm(net) for net in nets]
    most_px = max(SIDES_PX[0], MOST_ENLARGEMENT * find_own_side(dataset))
    timed_px = dataset.preparation.size_px or TIMED_SIDE_PX
    sides = [side for side in SIDES_PX if side <= most_px]
    if dataset.preparation.size_px is not None:
        sides = [timed_px]
    timed = fit_candidate(choices[0], "", dataset, settings, timed_px).time()
    work = _count_multiply_adds(timed)
    fitting: list[tuple[tuple[int, int, int], Candidate]] = []
    considered: list[Considered] = []
    for rank, choice in enumerate(choices):
        factor = _count_multiply_adds(fit_candidate(choice, "", dataset, settings, timed_px)) / work
        for side_px in sides:
            candidate = fit_candidate(choice, "", dataset, settings, side_px)
            if not settings.keys() & ENDS:
                candidate = open_end(candidate)
            pace = timed.pace.scale(factor * (side_px / timed_px) ** 2)
            candidate = replace(candidate, pace=pace)
            brief = candidate.with_epochs(1)
            tuned_epochs = TUNED_EPOCHS if side_px <= ENOUGH_PX else TUNED_EPOCHS_ABOVE
            if rank == 0 and (side_px <= TIMED_SIDE_PX or side_px == sides[0]):
                # a head for 96 px is better than all layers of any body for 64 px
                tuned_epochs = 0.0
            spared = (1 - tuned_epochs) * pace.train_seconds * len(dataset.train)
            left = candidate.left_to_train(deadline) - trial_seconds(deadline)
            has_time = brief.total_seconds() - spared <= left
            if has_time:
                fitting.append(((min(side_px, ENOUGH_PX), rank, side_px), candidate))
            if not has_time or side_px == sides[-1]:
                verdict = "fits" if has_time else "too slow"
                considered.append(to_considered(brief, verdict))
                break
    if not fitting:
        return None, tuple(considered)
    chosen = max(fitting, key=itemgetter(0))[1]
    is_timed = chosen.side_px == timed_px and chosen.experiment.net == choices[0]
    if not is_timed and chosen.evaluating_seconds() > LONG_FRACTION * deadline.seconds:
        chosen = chosen.time_evaluation()
    others = [other for other in considered if not is_of(other, chosen)]
    return chosen, (*others, to_considered(chosen.with_epochs(1), CHOSEN))


def trial_seconds(deadline: Deadline) -> float:
    return max(LEAST_TRIAL_SECONDS, TRIAL_FRACTION * deadline.seconds)


def _count_multiply_adds(candidate: Candidate) -> int:
    images = candidate.experiment.dataset.train.take_evenly(2)
    model = build_model(
        candidate.make(), resize_images(images, candidate.side_px), candidate.recipe
    )
    return count_multiply_adds(model)


def try_from_scratch(candidate: Candidate, fit: HeadFit, seconds: float) -> ScratchTrial | None:
    """Train a candidate for about ``seconds`` on other images than those that it is compared on.

    Returns ``None`` if the training fails, or if there are too few images.
    """
    began = time.perf_counter()
    dataset = candidate.experiment.dataset
    train = dataset.train
    is_held = deal_folds(train, fit.rows, candidate.recipe.seed).numpy() == 0
    held = np.flatnonzero(is_held)[:MOST_HELD_OUT]
    rows = fit.rows[held]
    trained = _find_others(train, rows)
    if len(held) < 2 or not len(trained):
        return None
    images = resize_images(train.take(trained), candidate.side_px, dataset.resize)
    held_out = resize_images(train.take(rows), candidate.side_px, dataset.resize)
    try:
        training = Training(candidate.make(), images, candidate.recipe, steps_per_record=1)
        _train_until(training, TimeLimit(began + seconds, candidate.is_open))
        logits = training.predict_logits(held_out.pixels)
    except LaminaError:
        return None
    task = task_of(train)
    losses = measure_losses(task, logits, held_out.targets)
    head_losses = measure_losses(task, fit.logits[held], held_out.targets)
    return ScratchTrial(
        candidate.net_name,
        candidate.side_px,
        seconds=time.perf_counter() - began,
        images=len(held),
        loss=float(losses.mean()),
        head_loss=float(head_losses.mean()),
        standard_error=float(np.std(head_losses - losses, ddof=1)) / math.sqrt(len(held)),
    )


def _find_others(train: Images, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " n"]:
    """The rows of all other images, without those of the same groups."""
    others = np.setdiff1d(np.arange(len(train)), rows)
    if not train.groups:
        return others
    unseen = {train.groups[row] for row in rows.tolist()}
    rest = [row for row in others.tolist() if train.groups[row] not in unseen]
    return np.array(rest, np.int64)


def _train_until(training: Training, limit: TimeLimit) -> None:
    schedule = training.schedule
    if limit.is_open:
        schedule.leave_open(0)
    for _ in training:
        if limit.is_open:
            steps = limit.choose_fall_steps(schedule, training.steps_done)
            if steps is not None:
                schedule.start_fall(training.steps_done, steps)
        if limit.is_over:
            break
