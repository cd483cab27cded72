"""Rules that diagnose training problems, with their limits and messages."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lamina.errors import plural
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.events import CauseKind, Diagnosis, DiagnosisKind
from lamina.training.observation import Activity, Observation

CAUSES: frozenset[str] = frozenset(get_args(CauseKind))
"""Causes of a net that does not learn; after one is found, its consequences are not reported."""

LIMITS = {
    # of the first layer's input, or 1 / 0.1; LeCun et al., Efficient BackProp, 1998
    "input standard deviation": 0.1,
    "initial loss": 3.0,  # loss before the first step / ln K; CS231n: 1; limit chosen here
    # norm of the change of all weights in a step / norm of the weights; CS231n: 0.001; chosen here
    "update": 0.5,
    "small update": 1e-3,  # the same ratio for the layer that changes most; CS231n
    # loss of an epoch / loss of the first step or of the constant prediction; chosen here
    "worse loss": 1.2,
    # fraction of the peak learning rate below which steps are small on purpose; chosen here
    "schedule": 0.5,
    # loss of an epoch / loss of the first step or of the constant prediction; chosen here
    "stagnation": 0.9,
    # fraction of steps that raised their batch's loss; Cockpit (Schneider et al., 2021)
    "raised losses": 0.5,
    "gradient": 70.0,  # norm of a layer's gradient; AutoTrainer (Zhang et al., ICSE 2021), beta_3
    # norm of the first layer's gradient / norm of the last; AutoTrainer, beta_1
    "gradient ratio": 1e-3,
    "gradient floor": 1e-4,  # norm of the first layer's gradient; AutoTrainer, beta_2
    "dead units": 0.5,  # fraction of a layer's units; AutoTrainer, gamma: 0.7 of the gradients
    "dead layer": 0.9,  # fraction of a layer's units with which a net no longer learns; chosen here
    "saturated outputs": 0.5,  # fraction of a layer's outputs; chosen here
    "constant loss": 0.995,  # loss of an epoch / loss of the best constant prediction; chosen here
    # the same ratio, above which the loss is not stuck there; chosen here
    "worse than constant": 1.1,
    "fitted loss": 0.1,  # loss after overfitting a few images / loss of a guess; chosen here
    # mean change of the loss between epochs / loss of the constant prediction; chosen here
    "swing": 0.1,
    "rise": 1.1,  # loss on val / lowest loss on val; Prechelt, Early Stopping, 1998; chosen here
    # standard errors of an accuracy; shuffled labels exceed them once in about 1,000 trainings
    "chance": 3.0,
    # accuracy in training - accuracy on val, of a net that memorizes; chosen here
    "accuracy gap": 0.1,
}
LEAST_STEPS, FIRST_STEPS = 64, 20
"""Steps before a net must have learned something, and first steps in which the loss of a healthy
net may rise and its batch-norm statistics are still unreliable."""
LEAST_IMAGES, LEAST_SEEN = 64, 400
"""Images needed to call a unit dead, and images per class that a net must have seen."""
LEAST_ASKED, SWINGS, RISES = 10, 4, 3
"""Checked steps, alternating changes of the loss, and worse epochs on val that a diagnosis
needs."""


def diagnose(seen: Observation, found: Sequence[Diagnosis]) -> Iterator[Diagnosis]:
    """New diagnoses, causes first; skips kinds that were ``found`` before."""
    kinds = {diagnosis.kind for diagnosis in found}
    is_explained = any(map(explains, found))
    for kind, find in RULES.items():
        # Small steps follow from small gradients.
        is_cause = kind in CAUSES and kind != "learning-rate-too-low"
        if is_explained and not is_cause:
            continue
        if result := find(seen):
            layer, evidence, finding, advice = result
            diagnosis = Diagnosis(kind, seen.epoch, layer, evidence, finding, advice)
            is_explained = is_explained or explains(diagnosis)
            if kind not in kinds:
                yield diagnosis


def explains(diagnosis: Diagnosis) -> bool:
    """Whether the diagnosis explains why a net does not learn."""
    if diagnosis.kind == "dying-relu":
        return diagnosis.evidence["dead_fraction"] >= LIMITS["dead layer"]
    return diagnosis.kind in CAUSES


Found = tuple[str | None, dict[str, float], str, str]  # layer, evidence, finding and advice


def find_odd_inputs(seen: Observation) -> Found | None:
    limit = LIMITS["input standard deviation"]
    path, moments = next(iter(seen.activity.inputs.items() if seen.activity else ()), (None, None))
    if path is None or moments is None or limit <= moments.standard_deviation <= 1 / limit:
        return None
    mean, deviation, layer = moments.mean, moments.standard_deviation, seen.names[path]
    return (
        layer,
        {"standard_deviation": deviation, "mean": mean},
        (
            f"The input of {layer} has mean {mean:.2g} and standard deviation {deviation:.2g}; 0"
            " and 1 are usual."
        ),
        (
            "Probable cause: the images are very dark, very bright or low in contrast, or the"
            " module rescales them. Try normalization channel."
        ),
    )


def find_high_initial_loss(seen: Observation) -> Found | None:
    if (
        seen.initial_loss is None
        or not seen.initial_loss > LIMITS["initial loss"] * seen.guess_loss
    ):
        return None
    if seen.kind is REGRESSION:  # one batch may contain outliers
        return None
    return (
        None,
        {"initial_loss": seen.initial_loss, "guess_loss": seen.guess_loss},
        (
            f"The loss before the first step was {seen.initial_loss:.4g}; the loss of guessing is"
            f" {seen.guess_loss:.4g}."
        ),
        (
            "Probable cause: the initial weights or the inputs of the last layer are too large. Try"
            " smaller initial weights, or BatchNorm() before it."
        ),
    )


def find_high_lr(seen: Observation) -> Found | None:
    update = max((check.update for check in seen.checks), default=0.0)
    raises = seen.asked >= LEAST_ASKED and seen.raised > LIMITS["raised losses"] * seen.asked
    is_worse = seen.loss_ratio > LIMITS["worse loss"] and seen.steps >= FIRST_STEPS
    if not (update > LIMITS["update"] or raises or is_worse):
        return None
    parts = [f"One step changed the weights by up to {update:.2g} times their norm"]
    if raises:
        parts.append(f"{seen.raised} of {seen.asked} steps raised the loss of their own batch")
    if is_worse:
        parts.append(
            f"the loss of this epoch is {seen.loss_ratio:.3g} times the loss before the first step"
        )
    return (
        None,
        {
            "update": update,
            "raised": float(seen.raised),
            "asked": float(seen.asked),
            "loss_ratio": seen.loss_ratio,
        },
        f"{'; '.join(parts)}.",
        f"Probable cause: the learning rate is too high. Try lr {seen.lr / 10:.2g}.",
    )


def find_explosion(seen: Observation) -> Found | None:
    pairs = [(norm, place) for check in seen.checks for place, norm in enumerate(check.gradients)]
    norm, place = max(pairs, default=(0.0, 0))
    limit = LIMITS["gradient"]
    if norm <= limit or not seen.losses[-1] > seen.constant_loss:  # the large gradients did no harm
        return None
    return (
        seen.names[seen.layers[place]],
        {"gradient": norm},
        (
            f"The gradient of {seen.names[seen.layers[place]]} had norm {norm:.3g}; more than"
            f" {limit:g} is unusual."
        ),
        (
            "Probable cause: the initial weights are too large, or the net is deep and has no"
            " normalization layers. Try gradient_clip 1, or BatchNorm() after each layer."
        ),
    )


def find_vanishing(seen: Observation) -> Found | None:
    # A last layer whose weights start at 0 passes no gradient back in the first step.
    checks = [check for check in seen.checks if check.step > 0]
    if not checks or not seen.layers:
        return None
    first, last = (
        statistics.median(check.gradients[place] for check in checks) for place in (0, -1)
    )
    ratio = first / last if last else 1.0
    if ratio >= LIMITS["gradient ratio"] or first >= LIMITS["gradient floor"]:
        return None
    return (
        seen.names[seen.layers[0]],
        {"gradient": first, "ratio": ratio},
        (
            f"The gradient of {seen.names[seen.layers[0]]} had norm {first:.1e}, {ratio:.1e} times"
            " the norm at the last layer."
        ),
        (
            "Probable cause: the net is deep and its activations shrink gradients. Try ReLU() in"
            " place of Sigmoid() or Tanh(), BatchNorm(), or Residual()."
        ),
    )


def find_dead(seen: Observation) -> Found | None:
    if seen.activity is None or seen.activity.images < LEAST_IMAGES or seen.steps < FIRST_STEPS:
        return None
    limit = LIMITS["dead units"]
    path, share = max(seen.activity.dead.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < limit:
        return None
    since = seen.since[path]
    moved = (
        f" One step changed the weights by up to {seen.largest_update:.2g} times their norm."
        if seen.checks
        else ""
    )
    return (
        seen.names[path],
        {"dead_fraction": share, "since_epoch": float(since), "update": seen.largest_update},
        (
            f"In {seen.names[path]}, {100 * share:.0f} % of the units are dead: 0 for all of"
            f" {seen.activity.images} images. The fraction has been {100 * limit / 2:.0f} % or more"
            f" since epoch {since}.{moved}"
        ),
        (
            "Probable cause: the learning rate is too high, or biases are far below 0. "
            f"Try lr {seen.lr / 3:.2g}, or BatchNorm() before it."
        ),
    )


def find_saturation(seen: Observation) -> Found | None:
    pairs = {} if seen.activity is None else seen.activity.saturated
    limit = LIMITS["saturated outputs"]
    path, share = max(pairs.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < limit:
        return None
    since = seen.since[path]
    return (
        seen.names[path],
        {"saturated_fraction": share, "since_epoch": float(since)},
        (
            f"In {seen.names[path]}, {100 * share:.0f} % of the outputs are saturated: near an end"
            f" of its range. The fraction has been {100 * limit / 2:.0f} % or more since epoch"
            f" {since}."
        ),
        (
            "Probable cause: its input is too large. Try BatchNorm() before it, smaller initial"
            " weights, or ReLU() in its place."
        ),
    )


def follow(since: Mapping[str, int], activity: Activity, epoch: int) -> dict[str, int]:
    """Each layer and its first epoch of inactivity of at least half the limit, after ``epoch``."""
    parts = (activity.dead, LIMITS["dead units"]), (activity.saturated, LIMITS["saturated outputs"])
    inactive = [
        path for shares, limit in parts for path, share in shares.items() if share >= limit / 2
    ]
    return {path: since.get(path, epoch) for path in inactive}


def find_low_lr(seen: Observation) -> Found | None:
    update = seen.largest_update
    if not 0 < update <= LIMITS["small update"] or seen.loss_ratio <= LIMITS["stagnation"]:
        return None
    if seen.steps < LEAST_STEPS or seen.lr_fraction < LIMITS["schedule"]:
        return None
    return (
        None,
        {"update": update, "loss": seen.losses[-1]},
        (
            f"No step changed a layer by more than {update:.1e} of its norm; the loss is still"
            f" {seen.losses[-1]:.4g}."
        ),
        f"Probable cause: the learning rate is too low. Try lr {seen.lr * 10:.2g}.",
    )


def learns_nothing(seen: Observation) -> bool:
    """Whether the loss has equaled the constant prediction's for two epochs and enough steps."""
    least, most = (
        LIMITS[name] * seen.constant_loss for name in ("constant loss", "worse than constant")
    )
    recent = seen.losses[-2:]
    is_long = seen.steps >= LEAST_STEPS and seen.images_seen >= LEAST_SEEN * seen.classes
    is_constant = len(recent) == 2 and all(least <= loss <= most for loss in recent)
    # In the first epoch every image is new, so an accuracy above the baseline's is not memorized. A
    # linear net may have one while its loss is still higher.
    share, images = seen.baseline_accuracy, seen.images_seen / seen.epoch
    limit = share + LIMITS["chance"] * math.sqrt(share * (1 - share) / images)
    has_learned = seen.first_accuracy is not None and seen.first_accuracy > limit
    return is_long and is_constant and not has_learned and seen.kind in (SINGLE_LABEL, BINARY)


def find_shuffled(seen: Observation) -> Found | None:
    # If a net cannot even fit a few images, its loss says nothing about the labels.
    if seen.fitted_loss is None or not seen.fitted_loss < LIMITS["fitted loss"] * seen.guess_loss:
        return None
    return (
        None,
        {
            "loss": seen.losses[-1],
            "constant_loss": seen.constant_loss,
            "fitted_loss": seen.fitted_loss,
        },
        (
            f"After {plural(seen.epoch, 'epoch', 'epochs')} the training loss is"
            f" {seen.losses[-1]:.4g}; the baseline's loss is {seen.constant_loss:.4g}. The net can"
            f" learn, because it reaches {seen.fitted_loss:.2g} when trained on a few images only."
        ),
        (
            "Probable cause: the labels are assigned to the wrong images, or the images do not show"
            " what the labels mean. Look at them with lamina data DATA --contact-sheet FILE.png."
        ),
    )


def find_one_class(seen: Observation) -> Found | None:
    activity = seen.activity
    if activity is None or activity.predicted_classes != 1 or activity.classes < 2:
        return None
    if seen.epoch < 2 or seen.steps < LEAST_STEPS:
        return None
    remedy = "a higher lr" if seen.recipe.class_weights else "class_weights"
    return (
        None,
        {"predicted_classes": 1.0, "classes": float(activity.classes)},
        (
            f"The prediction is the same class for all of {activity.images} images, which have"
            f" {activity.classes} classes."
        ),
        (
            "Probable cause: nearly all images have one class, or the net has not learned yet. Try"
            f" {remedy}."
        ),
    )


def find_oscillation(seen: Observation) -> Found | None:
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
        f"The loss oscillates between epochs by {100 * swing:.0f} % of the baseline's loss.",
        (
            "Probable cause: the learning rate is too high, or the batch too small. Try lr"
            f" {seen.lr / 3:.2g}."
        ),
    )


RULES: dict[DiagnosisKind, Callable[[Observation], Found | None]] = {
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
"""In the order in which they are checked, causes first."""


def find_overfitting(
    rows: Sequence[Mapping[str, Any]], score_name: str = "accuracy", sign: int = -1
) -> Diagnosis | None:
    """Diagnose overfitting: the ``val`` loss rises while the training loss falls.

    There is none while the score improves or is at its best; its ``sign`` is -1 if higher is
    better.
    """
    needed = ("val_loss", "train_loss", f"val_{score_name}")
    known = [row for row in rows if all(row.get(name) is not None for name in needed)]
    best = min(known, key=lambda row: row["val_loss"], default=None)
    if best is None or known[-1]["epoch"] <= best["epoch"] or len(known) <= RISES:
        return None
    last, lowest = known[-1], best["val_loss"]
    is_high = all(row["val_loss"] > LIMITS["rise"] * lowest for row in known[-RISES:])
    has_fallen = LIMITS["rise"] * last["train_loss"] < best["train_loss"]
    ranks = [sign * row[f"val_{score_name}"] for row in known]
    is_better = ranks[-1] < ranks[known.index(best)] or ranks[-1] == min(ranks)
    # The loss also rises when a net becomes too confident about a few wrong images, which
    # calibration corrects. Then the accuracies remain close, or label smoothing keeps the training
    # loss above the loss on val.
    is_accuracy = score_name == "accuracy" and last.get("train_accuracy") is not None
    gap = last["train_accuracy"] - last["val_accuracy"] if is_accuracy else math.inf
    memorizes = gap > LIMITS["accuracy gap"] and last["val_loss"] > last["train_loss"]
    if not is_high or not has_fallen or is_better or not memorizes:
        return None
    return Diagnosis(
        "overfitting",
        last["epoch"],
        None,
        {"val_loss": last["val_loss"], "lowest_val_loss": lowest, "train_loss": last["train_loss"]},
        f"The loss on val rose from {lowest:.4g} after epoch {best['epoch']} to"
        f" {last['val_loss']:.4g}, while the training loss fell to {last['train_loss']:.4g}.",
        # Patience, because the epoch with the lowest loss is rarely the one with the best score.
        "Probable cause: the net memorizes the training images. Try patience 5, more augmentation"
        " (translate_px, cutout_px), or more images.",
    )
