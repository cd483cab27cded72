"""Rules that diagnose training problems, with their limits and messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.training.events import Diagnosis, LayerStatistics
from lamina.training.recipe import Recipe

LIMITS = {
    # of the first layer's input, or 1 / 0.1; LeCun et al., Efficient BackProp, 1998
    "input standard deviation": 0.1,
    # loss of an epoch / loss of the first step or of the baseline; chosen here
    "worse loss": 1.2,
    # the same ratio, above which a net has not begun to learn; chosen here
    "stagnation": 0.9,
    # norm of all weights / their norm before the first step; chosen here: healthy trainings have up
    # to 6 (Muon), 100 times their learning rate 20 to 250
    "growth": 15.0,
    # loss of an epoch / loss of the first step or of the baseline, above which such a growth shows
    # that steps are too large; chosen here
    "slow learning": 0.8,
    # norm of a layer's gradient; chosen here: healthy trainings have up to 6; AutoTrainer (Zhang et
    # al., ICSE 2021) has 70
    "gradient": 20.0,
    # norm of the first layer's gradient / norm of the last; AutoTrainer, beta_1
    "gradient ratio": 1e-3,
    "gradient floor": 1e-4,  # norm of the first layer's gradient; AutoTrainer, beta_2
    # fraction of a layer's units; chosen here: nets learn while 3/4 of a layer's units are dead
    "dead units": 0.9,
    # norm of a layer's change in a step / norm of its weights, for the layer that changes most;
    # CS231n: 1e-3 is usual, less is too small
    "small update": 3e-4,
    # the same ratio, with which a net that can learn from its images has learned; chosen here
    "usual update": 3e-3,
    # fraction of the peak learning rate below which steps are small on purpose; chosen here
    "schedule": 0.5,
    # loss of an epoch / loss of the baseline, up to which they are equal; chosen here
    "baseline loss": 1.1,
    "rise": 1.1,  # loss on val / lowest loss on val; Prechelt, Early Stopping, 1998; chosen here
    # accuracy in training - accuracy on val, of a net that memorizes; chosen here
    "accuracy gap": 0.1,
}
LEAST_STEPS, LEAST_IMAGES, RISES = 64, 400, 3
"""Steps before a net must have learned something, images per class that must teach it something in
the first epoch, and worse epochs on val that a diagnosis of overfitting needs."""


@dataclass(frozen=True)
class Observation:
    """What the rules know of a training after an epoch."""

    epoch: int
    steps: int  # since the training began
    recipe: Recipe
    lr: float  # peak learning rate
    lr_fraction: float  # of it, in the last step
    loss: float  # in this epoch
    initial_loss: float  # in the first step
    baseline_loss: float  # of the best constant prediction; NaN if unknown
    growth: float  # norm of all weights, as a fraction of their norm before the first step
    # whether an epoch's loss was below the baseline's, or the first epoch's accuracy above chance
    has_learned: bool
    class_images: float  # training images for each class
    images: int  # for which the inputs and dead units of layers were measured
    layers: LayerStatistics

    @property
    def loss_ratio(self) -> float:
        """The loss, relative to the larger of the initial loss and the baseline's."""
        return self.loss / max(self.initial_loss, self.baseline_loss, 1e-30)

    @property
    def largest_update(self) -> float:
        """The change of the weights in the last step, relative to their norm, by layer."""
        sizes = self.values("weight_norms")
        updates = self.values("update_norms")
        ratios = [update / sizes[name] for name, update in updates.items() if sizes.get(name)]
        return max(ratios, default=0.0)

    def values(self, column: str) -> dict[str, float]:
        """The known values of a column of the statistics, by layer."""
        pairs = zip(self.layers.names, getattr(self.layers, column), strict=True)
        return {name: value for name, value in pairs if value is not None}


def diagnose(seen: Observation) -> Diagnosis | None:
    """The first problem in the order of :data:`RULES`, because it may cause the others."""
    for find in RULES:
        diagnosis = find(seen)
        if diagnosis is not None:
            return diagnosis
    return None


def find_odd_inputs(seen: Observation) -> Diagnosis | None:
    deviations = seen.values("input_standard_deviations")
    limit = LIMITS["input standard deviation"]
    layer = next(iter(deviations), "")
    deviation = deviations.get(layer, 1.0)
    if limit <= deviation <= 1 / limit:
        return None
    mean = seen.values("input_means")[layer]
    advice = "Probable cause: the module rescales its input. Let its values be about -1 to 1."
    change = {}
    if seen.recipe.normalization != "channel":
        advice = (
            "Probable cause: the images are very dark, very bright or low in contrast. Try"
            " normalization channel."
        )
        change = {"normalization": "channel"}
    return Diagnosis(
        kind="inputs-out-of-scale",
        epoch=seen.epoch,
        layer=layer,
        evidence={"standard_deviation": deviation, "mean": mean},
        finding=(
            f"The input of layer {layer} has mean {mean:.2g} and standard deviation"
            f" {deviation:.2g}; 0 and 1 are usual."
        ),
        advice=advice,
        change=change,
    )


def find_high_lr(seen: Observation) -> Diagnosis | None:
    is_worse = seen.loss_ratio > LIMITS["worse loss"]
    has_grown = seen.growth > LIMITS["growth"] and seen.loss_ratio > LIMITS["slow learning"]
    if seen.steps < LEAST_STEPS or not (is_worse or has_grown):
        return None
    lr = f"{seen.lr / 10:.2g}"
    return Diagnosis(
        kind="learning-rate-too-high",
        epoch=seen.epoch,
        layer=None,
        evidence={"loss_ratio": seen.loss_ratio, "growth": seen.growth},
        finding=(
            f"The loss of this epoch is {seen.loss_ratio:.3g} times the loss before the first step,"
            f" and the norm of the weights {seen.growth:.3g} times their initial norm."
        ),
        advice=f"Probable cause: the learning rate is too high. Try lr {lr}.",
        change={"lr": lr},
    )


def find_explosion(seen: Observation) -> Diagnosis | None:
    gradients = seen.values("gradient_norms")
    layer = max(gradients, key=gradients.__getitem__, default="")
    gradient = gradients.get(layer, 0.0)
    # Large gradients do no harm in a net that learns.
    is_harmful = seen.loss > LIMITS["worse loss"] * seen.baseline_loss
    if seen.steps < LEAST_STEPS or gradient <= LIMITS["gradient"] or not is_harmful:
        return None
    return Diagnosis(
        kind="exploding-gradients",
        epoch=seen.epoch,
        layer=layer,
        evidence={"gradient": gradient, "loss": seen.loss},
        finding=(
            f"The gradient of layer {layer} has norm {gradient:.3g}; more than"
            f" {LIMITS['gradient']:g} is unusual."
        ),
        advice=(
            "Probable cause: the initial weights are too large, or the net is deep and has no"
            " normalization layers. Try BatchNorm() after each layer, or smaller initial weights."
        ),
    )


def find_dead(seen: Observation) -> Diagnosis | None:
    fractions = seen.values("dead_fractions")
    layer = max(fractions, key=fractions.__getitem__, default="")
    fraction = fractions.get(layer, 0.0)
    if seen.steps < LEAST_STEPS or fraction < LIMITS["dead units"]:
        return None
    return Diagnosis(
        kind="dying-relu",
        epoch=seen.epoch,
        layer=layer,
        evidence={"dead_fraction": fraction},
        finding=(
            f"In layer {layer}, {100 * fraction:.0f} % of the units are dead: 0 for all of"
            f" {seen.images} images."
        ),
        advice=(
            "Probable cause: the learning rate is too high, or biases are far below 0. Try"
            " BatchNorm() before the layer, LeakyReLU() in its place, or a lower lr."
        ),
    )


def find_vanishing(seen: Observation) -> Diagnosis | None:
    gradients = seen.values("gradient_norms")
    is_stagnant = seen.loss_ratio > LIMITS["stagnation"]
    if seen.steps < LEAST_STEPS or not gradients or not is_stagnant:
        return None
    layer, gradient = next(iter(gradients.items()))
    last = next(reversed(gradients.values()))
    ratio = gradient / last if last else 1.0
    if ratio >= LIMITS["gradient ratio"] or gradient >= LIMITS["gradient floor"]:
        return None
    return Diagnosis(
        kind="vanishing-gradients",
        epoch=seen.epoch,
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


def find_low_lr(seen: Observation) -> Diagnosis | None:
    update = seen.largest_update
    is_small = 0 < update <= LIMITS["small update"] and seen.lr_fraction >= LIMITS["schedule"]
    is_stagnant = seen.loss_ratio > LIMITS["stagnation"]
    if seen.steps < LEAST_STEPS or not is_small or not is_stagnant:
        return None
    lr = f"{seen.lr * 10:.2g}"
    return Diagnosis(
        kind="learning-rate-too-low",
        epoch=seen.epoch,
        layer=None,
        evidence={"update": update, "loss": seen.loss},
        finding=(
            f"The last step changed no layer by more than {update:.1e} of its norm; the loss is"
            f" still {seen.loss:.4g}."
        ),
        advice=f"Probable cause: the learning rate is too low. Try lr {lr}.",
        change={"lr": lr},
    )


def find_shuffled(seen: Observation) -> Diagnosis | None:
    is_baseline = seen.loss <= LIMITS["baseline loss"] * seen.baseline_loss
    is_long = seen.epoch > 1 and seen.steps >= LEAST_STEPS and seen.class_images >= LEAST_IMAGES
    has_moved = seen.largest_update >= LIMITS["usual update"]
    if seen.has_learned or not (is_long and is_baseline and has_moved):
        return None
    return Diagnosis(
        kind="labels-look-shuffled",
        epoch=seen.epoch,
        layer=None,
        evidence={"loss": seen.loss, "baseline_loss": seen.baseline_loss},
        finding=(
            f"After {seen.epoch} epochs the training loss is {seen.loss:.4g}; the baseline's loss"
            f" is {seen.baseline_loss:.4g}. Gradients and steps have usual sizes, but the net finds"
            " nothing in the images that predicts their labels."
        ),
        advice=(
            "Probable cause: the labels are assigned to the wrong images, the images do not show"
            " what the labels mean, or the net is too small. Look at some images with their labels:"
            " in the studio under Data, or with lamina data DATA --contact-sheet FILE.png."
        ),
    )


RULES = (
    find_odd_inputs,
    find_high_lr,
    find_explosion,
    find_dead,
    find_vanishing,
    find_low_lr,
    find_shuffled,
)
"""In the order in which they are checked, causes first."""


def find_overfitting(
    rows: Sequence[Mapping[str, Any]], score_name: str = "accuracy", sign: int = -1
) -> Diagnosis | None:
    """Diagnose overfitting: the ``val`` loss rises while the training loss falls.

    ``rows`` are epochs of a history. There is none while the score improves or is at its best; its
    ``sign`` is -1 if higher is better.
    """
    needed = ("val_loss", "train_loss", f"val_{score_name}")
    known = [row for row in rows if all(row.get(name) is not None for name in needed)]
    best = min(known, key=lambda row: row["val_loss"], default=None)
    if best is None or best in known[-RISES:]:
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
            "Probable cause: the net memorizes the training images. Try patience 5, more"
            " augmentation (translate_px, cutout_px), or more images."
        ),
        change={"patience": "5"},
    )
