"""What an observation of a training says about what goes wrong: rules, their limits, and the sentences for people."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lamina.errors import plural
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.events import CauseKind, Diagnosis, DiagnosisKind
from lamina.training.observation import Activity, Observation

CAUSES: frozenset[str] = frozenset(get_args(CauseKind))
"""Why a net does not learn. What follows from that is not looked for where one of these was found."""


LIMITS = {
    "input standard deviation": 0.1,  # of the first layer's input, or ten; LeCun et al., Efficient BackProp, 1998
    "initial loss": 3.0,  # before the first step, by ln K, that of a guess; CS231n: they are equal; chosen here
    "update": 0.5,  # of all weights in a step, by their size; CS231n: a thousandth is usual; chosen here
    "small update": 1e-3,  # of the layer that changes most; CS231n: the usual one
    "worse loss": 1.2,  # of an epoch, by that of the first step or of a constant answer; chosen here
    "schedule": 0.5,  # of the peak learning rate: later, steps are small on purpose; chosen here
    "stagnation": 0.9,  # the same; chosen here
    "raised losses": 0.5,  # share of steps that raised their batch's loss, as in Cockpit (Schneider et al., 2021)
    "gradient": 70.0,  # norm of a layer's; AutoTrainer (Zhang et al., ICSE 2021), beta_3
    "gradient ratio": 1e-3,  # first layer's by the last's; AutoTrainer, beta_1
    "gradient floor": 1e-4,  # of the first layer at the same time; AutoTrainer, beta_2
    "dead units": 0.5,  # share of a layer's; AutoTrainer, gamma: 0.7 of the gradients
    "dead layer": 0.9,  # the same: fewer let a net learn; chosen here
    "saturated outputs": 0.5,  # share of a layer's at an end of its range; chosen here
    "constant loss": 0.995,  # of an epoch, by that of the best constant answer; chosen here
    "worse than constant": 1.1,  # the same: a larger loss is not stuck there; chosen here
    "fitted loss": 0.1,  # on a few images after steps on these alone, by that of a guess; chosen here
    "swing": 0.1,  # mean change of the loss between epochs, by its mean; chosen here
    "rise": 1.1,  # loss on val by its lowest; Prechelt, Early Stopping, 1998, generalization loss; chosen here
}
LEAST_STEPS, FIRST_STEPS = 64, 20
"""In fewer steps a net need not have learned anything; in so many first ones the loss of a healthy net may rise, and
its norms, whose statistics the look at the fixed images uses, have seen too little."""
LEAST_IMAGES, LEAST_SEEN = 64, 400
"""Fewer images may leave a healthy unit silent; so many have to be seen for each class."""
LEAST_ASKED, SWINGS, RISES = 10, 4, 3
"""So many steps are asked at least, so many changes of the loss alternate, so many epochs are worse on val."""


def diagnose(seen: Observation, found: Sequence[Diagnosis]) -> Iterator[Diagnosis]:
    """What goes wrong, causes before what follows from them; kinds that were ``found`` before are left out."""
    kinds = {diagnosis.kind for diagnosis in found}
    is_explained = any(map(explains, found))
    for kind, find in RULES.items():
        # Small steps follow from small gradients.
        is_cause = kind in CAUSES and kind != "learning-rate-too-low"
        if is_explained and not is_cause:
            continue
        if told := find(seen):
            layer, evidence, finding, advice = told
            diagnosis = Diagnosis(kind, seen.epoch, layer, evidence, finding, advice)
            is_explained = is_explained or explains(diagnosis)
            if kind not in kinds:
                yield diagnosis


def explains(diagnosis: Diagnosis) -> bool:
    """Whether a net that does not learn is explained by this."""
    if diagnosis.kind == "dying-relu":
        return diagnosis.evidence["dead_fraction"] >= LIMITS["dead layer"]
    return diagnosis.kind in CAUSES


Told = tuple[str | None, dict[str, float], str, str]  # layer, evidence, finding and advice


def find_odd_inputs(seen: Observation) -> Told | None:
    limit = LIMITS["input standard deviation"]
    path, moments = next(iter(seen.activity.inputs.items() if seen.activity else ()), (None, None))
    if path is None or moments is None or limit <= moments.standard_deviation <= 1 / limit:
        return None
    mean, deviation, layer = moments.mean, moments.standard_deviation, seen.names[path]
    return (
        layer,
        {"standard_deviation": deviation, "mean": mean},
        f"The input of {layer} has a standard deviation of {deviation:.2g} around {mean:.2g}; 1 around 0 is usual.",
        "Likely the images are very dark, pale or flat, or the module rescales them. Try normalization channel.",
    )


def find_high_initial_loss(seen: Observation) -> Told | None:
    if seen.initial_loss is None or not seen.initial_loss > LIMITS["initial loss"] * seen.guess_loss:
        return None
    if seen.kind is REGRESSION:  # one batch may hold numbers far from all others
        return None
    return (
        None,
        {"initial_loss": seen.initial_loss, "guess_loss": seen.guess_loss},
        f"The loss before the first step was {seen.initial_loss:.4g}; a guess has {seen.guess_loss:.4g}.",
        "Likely the initial weights of the last layer are too large, or the numbers that reach it are. Try smaller "
        "initial weights, or BatchNorm() before it.",
    )


def find_high_lr(seen: Observation) -> Told | None:
    update = max((check.update for check in seen.checks), default=0.0)
    raises = seen.asked >= LEAST_ASKED and seen.raised > LIMITS["raised losses"] * seen.asked
    is_worse = seen.loss_ratio > LIMITS["worse loss"] and seen.steps >= FIRST_STEPS
    if not (update > LIMITS["update"] or raises or is_worse):
        return None
    parts = [f"The weights changed by up to {update:.2g} of their size in one step"]
    if raises:
        parts.append(f"{seen.raised} of {seen.asked} steps raised the loss of their own batch")
    if is_worse:
        parts.append(f"the loss of this epoch is {seen.loss_ratio:.3g} times what it was before the first step")
    return (
        None,
        {"update": update, "raised": float(seen.raised), "asked": float(seen.asked), "loss_ratio": seen.loss_ratio},
        f"{'; '.join(parts)}.",
        f"Likely the learning rate is too high. Try lr {seen.lr / 10:.2g}.",
    )


def find_explosion(seen: Observation) -> Told | None:
    pairs = [(norm, place) for check in seen.checks for place, norm in enumerate(check.gradients)]
    norm, place = max(pairs, default=(0.0, 0))
    limit = LIMITS["gradient"]
    if norm <= limit or not seen.losses[-1] > seen.constant_loss:  # large gradients did no harm
        return None
    return (
        seen.names[seen.layers[place]],
        {"gradient": norm},
        f"The gradient of {seen.names[seen.layers[place]]} had a norm of {norm:.3g}; {limit:g} is a lot.",
        "Likely the initial weights are too large, or the net is deep without norms. Try gradient_clip 1, or "
        "BatchNorm() after each layer.",
    )


def find_vanishing(seen: Observation) -> Told | None:
    # A last layer that begins at 0 passes nothing on in the first step.
    checks = [check for check in seen.checks if check.step > 0]
    if not checks or not seen.layers:
        return None
    first, last = (statistics.median(check.gradients[place] for check in checks) for place in (0, -1))
    ratio = first / last if last else 1.0
    if ratio >= LIMITS["gradient ratio"] or first >= LIMITS["gradient floor"]:
        return None
    return (
        seen.names[seen.layers[0]],
        {"gradient": first, "ratio": ratio},
        f"The gradient of {seen.names[seen.layers[0]]} had a norm of {first:.1e}, {ratio:.1e} of the last layer's.",
        "Likely the net is deep, and its activations flatten gradients. Try ReLU() in place of Sigmoid() or Tanh(), "
        "BatchNorm(), or Residual().",
    )


def find_dead(seen: Observation) -> Told | None:
    if seen.activity is None or seen.activity.images < LEAST_IMAGES or seen.steps < FIRST_STEPS:
        return None
    limit = LIMITS["dead units"]
    path, share = max(seen.activity.dead.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < limit:
        return None
    since = seen.since[path]
    moved = f" Weights changed by up to {seen.largest_update:.2g} of their size in one step." if seen.checks else ""
    return (
        seen.names[path],
        {"dead_fraction": share, "since_epoch": float(since), "update": seen.largest_update},
        f"In {seen.names[path]}, {100 * share:.0f} % of the units answered none of {seen.activity.images} images, "
        f"{100 * limit / 2:.0f} % or more since epoch {since}.{moved}",
        "Likely the learning rate is too high, or biases are far below 0. "
        f"Try lr {seen.lr / 3:.2g}, or BatchNorm() before it.",
    )


def find_saturation(seen: Observation) -> Told | None:
    pairs = {} if seen.activity is None else seen.activity.saturated
    limit = LIMITS["saturated outputs"]
    path, share = max(pairs.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < limit:
        return None
    since = seen.since[path]
    return (
        seen.names[path],
        {"saturated_fraction": share, "since_epoch": float(since)},
        f"In {seen.names[path]}, {100 * share:.0f} % of the outputs were at an end of its range, "
        f"{100 * limit / 2:.0f} % or more since epoch {since}.",
        "Likely its input is too large. Try BatchNorm() before it, smaller initial weights, or ReLU() in its place.",
    )


def follow(since: Mapping[str, int], activity: Activity, epoch: int) -> dict[str, int]:
    """For each layer that is half inactive or more in a look after ``epoch``, since when it has been."""
    parts = (activity.dead, LIMITS["dead units"]), (activity.saturated, LIMITS["saturated outputs"])
    inactive = [path for shares, limit in parts for path, share in shares.items() if share >= limit / 2]
    return {path: since.get(path, epoch) for path in inactive}


def find_low_lr(seen: Observation) -> Told | None:
    update = seen.largest_update
    if not 0 < update <= LIMITS["small update"] or seen.loss_ratio <= LIMITS["stagnation"]:
        return None
    if seen.steps < LEAST_STEPS or seen.lr_fraction < LIMITS["schedule"]:
        return None
    return (
        None,
        {"update": update, "loss": seen.losses[-1]},
        f"No layer changed by more than {update:.1e} of its size in a step; the loss is {seen.losses[-1]:.4g} still.",
        f"Likely the learning rate is too low. Try lr {seen.lr * 10:.2g}.",
    )


def learns_nothing(seen: Observation) -> bool:
    """Whether the loss has been that of the best constant prediction for two epochs, and long enough."""
    least, most = (LIMITS[name] * seen.constant_loss for name in ("constant loss", "worse than constant"))
    recent = seen.losses[-2:]
    is_long = seen.steps >= LEAST_STEPS and seen.images_seen >= LEAST_SEEN * seen.classes
    is_constant = len(recent) == 2 and all(least <= loss <= most for loss in recent)
    return is_long and is_constant and seen.kind in (SINGLE_LABEL, BINARY)


def find_shuffled(seen: Observation) -> Told | None:
    # Of a net that cannot even fit a few images, such a loss says nothing about the labels.
    if seen.fitted_loss is None or not seen.fitted_loss < LIMITS["fitted loss"] * seen.guess_loss:
        return None
    return (
        None,
        {"loss": seen.losses[-1], "constant_loss": seen.constant_loss, "fitted_loss": seen.fitted_loss},
        f"After {plural(seen.epoch, 'epoch', 'epochs')} the training loss is {seen.losses[-1]:.4g}; the best constant "
        f"prediction has {seen.constant_loss:.4g}. Yet the net can learn: on a few images alone it reaches "
        f"{seen.fitted_loss:.2g}.",
        "Likely the labels do not belong to the images, or the images do not show them. Look at them: lamina data "
        "DATA --contact-sheet FILE.png.",
    )


def find_one_class(seen: Observation) -> Told | None:
    activity = seen.activity
    if activity is None or activity.predicted_classes != 1 or activity.classes < 2:
        return None
    if seen.epoch < 2 or seen.steps < LEAST_STEPS:
        return None
    remedy = "a higher lr" if seen.recipe.class_weights else "class_weights"
    return (
        None,
        {"outputs": 1.0, "classes": float(activity.classes)},
        f"The answer was the same for all of {activity.images} images, which have {activity.classes} classes.",
        f"Likely nearly all images are of one class, or nothing was learned yet. Try {remedy}.",
    )


def find_oscillation(seen: Observation) -> Told | None:
    recent = seen.losses[-SWINGS - 1 :]
    changes = [after - before for before, after in itertools.pairwise(recent)]
    if len(changes) < SWINGS or any(one * other >= 0 for one, other in itertools.pairwise(changes)):
        return None
    swing = statistics.fmean(map(abs, changes)) / seen.constant_loss
    if not swing > LIMITS["swing"]:
        return None
    return (
        None,
        {"swing": swing},
        f"The loss went up and down by {100 * swing:.0f} % of a constant answer's from epoch to epoch.",
        f"Likely the learning rate is too high, or the batch too small. Try lr {seen.lr / 3:.2g}.",
    )


RULES: dict[DiagnosisKind, Callable[[Observation], Told | None]] = {
    "inputs-out-of-scale": find_odd_inputs,
    "initial-loss-too-high": find_high_initial_loss,
    "learning-rate-too-high": find_high_lr,
    "exploding-gradients": find_explosion,
    "vanishing-gradients": find_vanishing,
    "dying-relu": find_dead,
    "saturation": find_saturation,
    "learning-rate-too-low": find_low_lr,
    "labels-look-shuffled": find_shuffled,
    "one-class-predicted": find_one_class,
    "oscillation": find_oscillation,
}
"""In the order in which they are asked: causes first."""


def find_overfitting(rows: Sequence[Mapping[str, Any]]) -> Diagnosis | None:
    """What the history's rows of epochs say about overfitting: the loss on ``val`` rises while that of training falls.

    >>> rows = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1 + abs(e - 3) / 8} for e in range(1, 7)]
    >>> find_overfitting(rows[:4]), find_overfitting(rows).kind
    (None, 'overfitting')
    """
    known = [row for row in rows if row.get("val_loss") is not None and row.get("train_loss") is not None]
    best = min(known, key=lambda row: row["val_loss"], default=None)
    if best is None or known[-1]["epoch"] <= best["epoch"] or len(known) <= RISES:
        return None
    last, lowest = known[-1], best["val_loss"]
    is_high = all(row["val_loss"] > LIMITS["rise"] * lowest for row in known[-RISES:])
    is_better = last.get("val_accuracy", 0.0) > best.get("val_accuracy", 0.0)
    if not is_high or is_better or last["train_loss"] >= best["train_loss"]:
        return None
    return Diagnosis(
        "overfitting",
        last["epoch"],
        None,
        {"val_loss": last["val_loss"], "lowest_val_loss": lowest, "train_loss": last["train_loss"]},
        f"The loss on val was lowest after epoch {best['epoch']}, {lowest:.4g}, and is {last['val_loss']:.4g}, while "
        f"that of training fell to {last['train_loss']:.4g}.",
        f"Likely the net remembers its images. Try epochs {best['epoch']}, more augmentation (translate_px, "
        "cutout_px), or more images.",
    )
