"""Pretrained nets as candidates: body and size by measured pace, and a trial from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lamina.data import Dataset
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
    nets: Sequence[TimmNet],
    dataset: Dataset,
    deadline: Deadline,
    given: Mapping[str, Any],
) -> tuple[Candidate | None, tuple[Considered, ...]]:
    """The best body and image size that fit into the time limit, if any, and all considered."""
    asked = dataset.preparation.size_px
    own_px = find_own_side(dataset)
    most_px = max(SIDES_PX[0], MOST_ENLARGEMENT * own_px)
    sides = [side for side in SIDES_PX if side <= most_px] if asked is None else [asked]
    choices = [choice_of_timm(net) for net in nets]
    timed_px = TIMED_SIDE_PX if asked is None else asked
    timed = fit_candidate(choices[0], "", dataset, given, timed_px).time()
    works = [
        _count_multiply_adds(fit_candidate(choice, "", dataset, given, timed_px))
        for choice in choices
    ]
    found: list[tuple[tuple[int, int, int], Candidate]] = []
    considered: list[Considered] = []
    for rank, choice in enumerate(choices):
        for side_px in sides:
            candidate = fit_candidate(choice, "", dataset, given, side_px)
            candidate = candidate if given.keys() & ENDS else open_end(candidate)
            area = works[rank] / works[0] * (side_px / timed_px) ** 2
            train_seconds, evaluation_seconds = (
                timed.pace.train_seconds,
                timed.pace.evaluation_seconds,
            )
            pace = replace(
                timed.pace,
                train_seconds=area * train_seconds,
                evaluation_seconds=area * evaluation_seconds,
            )
            candidate = replace(candidate, pace=pace)
            recipe = replace(candidate.recipe, epochs=1)
            tuned_epochs = TUNED_EPOCHS if side_px <= ENOUGH_PX else TUNED_EPOCHS_ABOVE
            if rank == 0 and (side_px <= TIMED_SIDE_PX or side_px == sides[0]):
                # a head for 96 px is better than all layers of any body for 64 px
                tuned_epochs = 0.0
            spared = (1 - tuned_epochs) * pace.train_seconds * len(dataset.train)
            left = candidate.left_to_train(deadline) - trial_seconds(deadline)
            has_time = candidate.total_seconds(recipe) - spared <= left
            if has_time:
                found.append(((min(side_px, ENOUGH_PX), rank, side_px), candidate))
            if not has_time or side_px == sides[-1]:
                considered.append(
                    to_considered(candidate, "fits" if has_time else "too slow", recipe)
                )
                break
    if not found:
        return None, tuple(considered)
    chosen = max(found, key=lambda one: one[0])[1]
    is_timed = chosen.side_px == timed_px and chosen.experiment.net == choices[0]
    if not is_timed and chosen.evaluating_seconds() > LONG_FRACTION * deadline.seconds:
        chosen = chosen.time_evaluation()
    others = [one for one in considered if not is_of(one, chosen)]
    return chosen, (*others, to_considered(chosen, CHOSEN, replace(chosen.recipe, epochs=1)))


def trial_seconds(deadline: Deadline) -> float:
    return max(LEAST_TRIAL_SECONDS, TRIAL_FRACTION * deadline.seconds)


def _count_multiply_adds(candidate: Candidate) -> int:
    few = resize_images(candidate.experiment.dataset.train.take_evenly(2), candidate.side_px)
    return count_multiply_adds(build_model(candidate.make(), few, candidate.recipe))


def try_from_scratch(candidate: Candidate, fit: HeadFit, seconds: float) -> ScratchTrial | None:
    """Train a candidate for about ``seconds`` on other images than those that it is compared on.

    Returns ``None`` if the training fails, or if there are too few images.
    """
    began = time.perf_counter()
    train = candidate.experiment.dataset.train
    held = np.flatnonzero(deal_folds(train, fit.rows, candidate.recipe.seed).numpy() == 0)[
        :MOST_HELD_OUT
    ]
    if len(held) < 2:
        return None
    rows = fit.rows[held]
    kept = np.setdiff1d(np.arange(len(train)), rows)
    if train.groups:
        unseen = {train.groups[row] for row in rows.tolist()}
        kept = np.array([row for row in kept.tolist() if train.groups[row] not in unseen], np.int64)
    if not len(kept):
        return None
    resize = candidate.experiment.dataset.resize
    images, others = (
        resize_images(train.take(part), candidate.side_px, resize) for part in (kept, rows)
    )
    try:
        training = Training(candidate.make(), images, candidate.recipe, steps_per_record=1)
        limit = TimeLimit(began + seconds, is_open=candidate.is_open)
        if candidate.is_open:
            training.schedule.leave_open(0)
        for _ in training:
            fall = (
                limit.choose_fall_steps(training.schedule, training.steps_done)
                if candidate.is_open
                else None
            )
            if fall is not None:
                training.schedule.start_fall(training.steps_done, fall)
            if limit.is_over:
                break
        logits = training.predict_logits(others.pixels)
    except LaminaError:
        return None
    task = task_of(train)
    own, other = (
        measure_losses(task, found, others.targets) for found in (logits, fit.logits[held])
    )
    error = float(np.std(other - own, ddof=1)) / math.sqrt(len(held))
    name, took = candidate.experiment.net.name, time.perf_counter() - began
    return ScratchTrial(
        name, candidate.side_px, took, len(held), float(own.mean()), float(other.mean()), error
    )
