"""The images on which two models disagree."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64

from lamina.evaluation.outputs import Outputs
from lamina.insight.confusions import measure_losses
from lamina.targets import REGRESSION
from lamina.training.task import Task


def find_differing(
    task: Task, outputs: Outputs, base_task: Task, others: Outputs
) -> dict[str, Int64[np.ndarray, " _"]]:
    """Images that only ``a`` or only ``b`` predicts correctly, or both wrongly but differently.

    For numbers, the closer prediction counts as correct. The largest difference of the losses comes
    first.
    """
    a = decide_rows(task, outputs)
    b = decide_rows(base_task, others)
    truth = outputs.targets.reshape(a.shape).astype(np.float32)
    if task.kind is REGRESSION:
        a_error = np.abs(a - truth).mean(axis=1)
        b_error = np.abs(b - truth).mean(axis=1)
        masks = {"a": a_error < b_error, "b": b_error < a_error}
    else:
        a_right = (a == truth).all(axis=1)
        b_right = (b == truth).all(axis=1)
        differ = (a != b).any(axis=1)
        masks = {"a": a_right & ~b_right, "b": b_right & ~a_right, "": ~a_right & ~b_right & differ}
    losses = measure_losses(task, outputs.raw_logits(task), outputs.targets)
    base_losses = measure_losses(base_task, others.raw_logits(base_task), others.targets)
    order = np.argsort(-np.abs(losses - base_losses), kind="stable")
    return {better: order[mask[order]] for better, mask in masks.items()}


def decide_rows(task: Task, outputs: Outputs) -> Float32[np.ndarray, "n m"]:
    """The decisions of a model, a row for each image."""
    decided = task.decide(torch.from_numpy(outputs.raw_logits(task)))
    return decided.float().reshape(len(decided), -1).numpy()
