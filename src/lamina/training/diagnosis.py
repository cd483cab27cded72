"""Diagnoses: problems of a training, found in the rows of its history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lamina.targets import Score
from lamina.training.events import Diagnosis

Row: TypeAlias = Mapping[str, Any]
"""An epoch as JSON."""

# Limits of the rules
WORSE_LOSS = 1.2
"""Loss of an epoch / initial loss; chosen here."""
STAGNATION = 0.9
"""The same ratio, above which a net has not begun to learn; chosen here."""
GROWTH = 15.0
"""Norm of all weights / their norm before the first step; chosen here: healthy runs have up to 6
(Muon), and 20 to 250 at 100 times their learning rate."""
SLOW_LEARNING = 0.8
"""The same ratio, above which growing weights show that steps are too large; chosen here."""
LARGE_GRADIENT = 20.0
"""Norm of a layer's gradient; chosen here: healthy runs have up to 6; AutoTrainer (Zhang et al.,
ICSE 2021) has 70."""
GRADIENT_RATIO = 1e-3
"""Norm of the first layer's gradient / norm of the last layer's; AutoTrainer, beta_1."""
SMALL_GRADIENT = 1e-4
"""Norm of the first layer's gradient; AutoTrainer, beta_2."""
DEAD_UNITS = 0.9
"""Fraction of a layer's units; chosen here: nets learn while 3/4 of a layer's units are dead."""
SMALL_UPDATE = 3e-4
"""Norm of a layer's change in a step / norm of its weights, for the layer that changes most;
CS231n: 1e-3 is usual, less is too small."""
LEAST_LR_FRACTION = 0.5
"""Fraction of the peak learning rate below which steps are small on purpose; chosen here."""
RISE = 1.1
"""Loss on val / lowest loss on val; Prechelt, Early Stopping, 1998; chosen here."""
ACCURACY_GAP = 0.1
"""Accuracy in training - accuracy on val, of a net that memorizes; chosen here."""
LEAST_STEPS = 64
RISES = 3
"""Number of steps in which a net must learn something; number of worse epochs on val in a diagnosis
of overfitting."""


@dataclass(frozen=True)
class Start:
    """What the epochs of a training are compared with.

    Attributes:
        loss: Loss of the first step.
        untrained_loss: Loss if all logits are 0; NaN if unknown.
        norm: Norm of all weight matrices before the first step.
        lr: Peak learning rate.
        steps_per_epoch: Steps of an epoch.
        images: Number of fixed images, in which dead units are counted.
    """

    loss: float
    untrained_loss: float
    norm: float
    lr: float
    steps_per_epoch: int
    images: int


def diagnose(
    rows: Sequence[Row], start: Start, score: Score | None = None
) -> tuple[Diagnosis, ...]:
    """The problems that the last epoch shows, if the history does not name them before.

    Of :data:`RULES`, only the first problem is named, because it may cause the others. With the
    score of the epoch on ``val``, overfitting is named, too.

    >>> start = Start(loss=2.3, untrained_loss=2.3, norm=1, lr=1, steps_per_epoch=100, images=64)
    >>> row = {"epoch": 1, "train_loss": 40.0, "lr": 1}
    >>> [(diagnosis.kind, diagnosis.change) for diagnosis in diagnose([row], start)]
    [('learning-rate-too-high', {'lr': '0.1'})]
    """
    last = rows[-1]
    named = {diagnosis["kind"] for row in rows for diagnosis in row.get("diagnoses", ())}
    diagnoses: list[Diagnosis | None] = []
    if not named - {"overfitting"} and last["epoch"] * start.steps_per_epoch >= LEAST_STEPS:
        problems = (rule(last, start) for rule in RULES)
        diagnoses.append(next((problem for problem in problems if problem is not None), None))
    if score is not None and "overfitting" not in named:
        sign = 1 if score.lower_is_better else -1
        diagnoses.append(find_overfitting(rows, score.name, sign))
    return tuple(diagnosis for diagnosis in diagnoses if diagnosis is not None)


def find_high_lr(row: Row, start: Start) -> Diagnosis | None:
    loss_ratio = compare_losses(row, start)
    growth = math.hypot(*column(row, "weight_norms").values()) / (start.norm or 1.0)
    is_worse = loss_ratio > WORSE_LOSS
    has_grown = growth > GROWTH and loss_ratio > SLOW_LEARNING
    if not (is_worse or has_grown):
        return None
    return Diagnosis(
        kind="learning-rate-too-high",
        epoch=row["epoch"],
        layer=None,
        evidence={"loss_ratio": loss_ratio, "growth": growth},
        finding=(
            f"The loss of this epoch is {loss_ratio:.3g} times the loss before the first step,"
            f" and the norm of the weights {growth:.3g} times their initial norm."
        ),
        advice="Probable cause: the learning rate is too high.",
        change={"lr": f"{start.lr / 10:.2g}"},
    )


def find_explosion(row: Row, start: Start) -> Diagnosis | None:
    gradients = column(row, "gradient_norms")
    layer = max(gradients, key=gradients.__getitem__, default="")
    gradient = gradients.get(layer, 0.0)
    # Large gradients do no harm in a net that learns.
    is_harmful = read_loss(row) > WORSE_LOSS * start.untrained_loss
    if gradient <= LARGE_GRADIENT or not is_harmful:
        return None
    return Diagnosis(
        kind="exploding-gradients",
        epoch=row["epoch"],
        layer=layer,
        evidence={"gradient": gradient, "loss": read_loss(row)},
        finding=(
            f"The gradient of layer {layer} has norm {gradient:.3g}; more than"
            f" {LARGE_GRADIENT:g} is unusual."
        ),
        advice=(
            "Probable cause: the initial weights are too large, or the net is deep and has no"
            " normalization layers. Try BatchNorm() after each layer, or smaller initial weights."
        ),
    )


def find_dead(row: Row, start: Start) -> Diagnosis | None:
    fractions = column(row, "dead_fractions")
    layer = max(fractions, key=fractions.__getitem__, default="")
    fraction = fractions.get(layer, 0.0)
    if fraction < DEAD_UNITS:
        return None
    return Diagnosis(
        kind="dying-relu",
        epoch=row["epoch"],
        layer=layer,
        evidence={"dead_fraction": fraction},
        finding=(
            f"In layer {layer}, {100 * fraction:.0f} % of the units are dead: 0 for all of"
            f" {start.images} images."
        ),
        advice=(
            "Probable cause: the learning rate is too high, or biases are far below 0. Try"
            " BatchNorm() before the layer, LeakyReLU() in its place, or a lower learning rate."
        ),
    )


def find_vanishing(row: Row, start: Start) -> Diagnosis | None:
    gradients = column(row, "gradient_norms")
    is_stagnant = compare_losses(row, start) > STAGNATION
    if not gradients or not is_stagnant:
        return None
    layer, gradient = next(iter(gradients.items()))
    last = next(reversed(gradients.values()))
    ratio = gradient / last if last else 1.0
    if ratio >= GRADIENT_RATIO or gradient >= SMALL_GRADIENT:
        return None
    return Diagnosis(
        kind="vanishing-gradients",
        epoch=row["epoch"],
        layer=layer,
        evidence={"gradient": gradient, "ratio": ratio},
        finding=(
            f"The gradient of layer {layer} has norm {gradient:.1e}, {ratio:.1e} times the norm at"
            " the last layer."
        ),
        advice=(
            "Probable cause: the net is deep and its activations shrink gradients. Try ReLU() in"
            " place of Sigmoid() or Tanh(), BatchNorm(), or Residual()."
        ),
    )


def find_low_lr(row: Row, start: Start) -> Diagnosis | None:
    norms = column(row, "weight_norms")
    updates = column(row, "update_norms")
    ratios = [update / norms[layer] for layer, update in updates.items() if norms.get(layer)]
    update = max(ratios, default=0.0)
    is_small = 0 < update <= SMALL_UPDATE and row["lr"] >= LEAST_LR_FRACTION * start.lr
    is_stagnant = compare_losses(row, start) > STAGNATION
    if not is_small or not is_stagnant:
        return None
    return Diagnosis(
        kind="learning-rate-too-low",
        epoch=row["epoch"],
        layer=None,
        evidence={"update": update, "loss": row["train_loss"]},
        finding=(
            f"The last step changed no layer by more than {update:.1e} of its norm; the loss is"
            f" still {row['train_loss']:.4g}."
        ),
        advice="Probable cause: the learning rate is too low.",
        change={"lr": f"{start.lr * 10:.2g}"},
    )


RULES: tuple[Callable[[Row, Start], Diagnosis | None], ...] = (
    find_high_lr,
    find_explosion,
    find_dead,
    find_vanishing,
    find_low_lr,
)
"""In the order in which they are checked, causes first."""


def compare_losses(row: Row, start: Start) -> float:
    """The loss of an epoch, relative to the initial loss; NaN if there is no positive one."""
    initial = max(start.loss, start.untrained_loss)
    if math.isnan(start.untrained_loss):
        initial = start.loss
    return read_loss(row) / initial if initial > 0 else math.nan


def read_loss(row: Row) -> float:
    """The training loss of an epoch; JSON has no infinity."""
    return math.inf if row["train_loss"] is None else float(row["train_loss"])


def column(row: Row, name: str) -> dict[str, float]:
    """The known values of a column of layer statistics, by layer."""
    layers = row.get("layers") or {"names": (), name: ()}
    pairs = zip(layers["names"], layers[name], strict=True)
    return {layer: value for layer, value in pairs if value is not None}


def find_overfitting(
    rows: Sequence[Mapping[str, Any]], score_name: str = "accuracy", sign: int = -1
) -> Diagnosis | None:
    """Diagnose overfitting: the ``val`` loss rises while the training loss falls.

    ``rows`` are epochs of a history. Returns ``None`` while the score improves or is at its best;
    ``sign`` is -1 if a higher score is better.
    """
    needed = ("val_loss", "train_loss", f"val_{score_name}")
    known = [row for row in rows if all(row.get(name) is not None for name in needed)]
    best = min(known, key=lambda row: row["val_loss"], default=None)
    if best is None or best in known[-RISES:]:
        return None
    last = known[-1]
    lowest = best["val_loss"]
    is_high = all(row["val_loss"] > RISE * lowest for row in known[-RISES:])
    has_fallen = RISE * last["train_loss"] < best["train_loss"]
    ranks = [sign * row[f"val_{score_name}"] for row in known]
    is_better = ranks[-1] < ranks[known.index(best)] or ranks[-1] == min(ranks)
    # The loss also rises when a net becomes too confident about a few wrong images, which
    # calibration corrects. Then the accuracies remain close, or label smoothing keeps the training
    # loss above the loss on val.
    is_accuracy = score_name == "accuracy" and last.get("train_accuracy") is not None
    gap = last["train_accuracy"] - last["val_accuracy"] if is_accuracy else math.inf
    memorizes = gap > ACCURACY_GAP and last["val_loss"] > last["train_loss"]
    if not is_high or not has_fallen or is_better or not memorizes:
        return None
    return Diagnosis(
        kind="overfitting",
        epoch=last["epoch"],
        layer=None,
        evidence={
            "val_loss": last["val_loss"],
            "lowest_val_loss": lowest,
            "train_loss": last["train_loss"],
        },
        finding=(
            f"The loss on val rose from {lowest:.4g} after epoch {best['epoch']} to"
            f" {last['val_loss']:.4g}, while the training loss fell to {last['train_loss']:.4g}."
        ),
        # Patience, because the epoch with the lowest loss is rarely the one with the best score.
        advice=(
            "Probable cause: the net memorizes the training images. Try more images, random"
            " translation or cutout of the images, or fewer epochs."
        ),
        change={"patience": "5"},
    )
