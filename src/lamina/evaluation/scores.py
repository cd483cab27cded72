"""Metrics by their published formulas."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

CALIBRATION_BINS = 15


def count_confusion(
    chosen: Int64[Tensor, " n"], targets: Int64[Tensor, " n"], classes: int
) -> Int64[np.ndarray, "k k"]:
    """Images by true class (rows) and predicted class (columns)."""
    return torch.bincount(targets * classes + chosen, minlength=classes**2).view(classes, classes).numpy()


def calibration_error(confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"]) -> float:
    """Mean distance between confidence and accuracy over 15 equal bins (Guo et al., 2017, equation 3)."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, is_correct.double() - confidence.double())
    return gaps.abs().sum().item() / len(confidence)


def average_precision(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> tuple[float, Float64[Tensor, " n"]]:
    """The average precision, and its derivatives by the weight of each image."""
    descending, order = scores.sort(descending=True)
    ties = descending.unique_consecutive(return_counts=True)[1]  # images with equal scores share a threshold
    seen = ties.cumsum(0)
    found = truth[order].double().cumsum(0)[seen - 1]
    hits = found.diff(prepend=found.new_zeros(1))
    precision = found / seen
    value = (precision * hits).sum() / found[-1]
    # An image counts at its threshold, and in the found and seen images of every lower threshold.
    as_found, as_seen = ((hits * part).flip(0).cumsum(0).flip(0) for part in (1 / seen, precision / seen))
    places = torch.empty_like(order)
    places[order] = torch.arange(len(ties)).repeat_interleave(ties)
    influences = truth * (precision - value + as_found)[places] - as_seen[places]
    return float(value), influences / found[-1]


def mean_ranks(values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, " n"]:
    """The rank of each value, from 1 for the lowest; equal values get their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.take(counts.cumsum() - (counts - 1) / 2, places.ravel())


def roc_auc(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """The fraction of pairs of a positive and a negative image in which the positive scores higher; ties count half."""
    _, places, ties = scores.unique(return_inverse=True, return_counts=True)
    trues = torch.zeros(len(ties), dtype=torch.float64).index_add_(0, places, truth.double())
    falses = ties - trues
    lower = falses.cumsum(0) - falses
    return float((trues * (lower + falses / 2)).sum() / (trues.sum() * falses.sum()))
