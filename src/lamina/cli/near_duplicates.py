"""Near-duplicates of training images among evaluated images, and the score without them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32

from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Images
from lamina.insight.similarity import find_overlap
from lamina.training.task import Task


def report_overlap(
    task: Task,
    logits: Float32[np.ndarray, "n k"],
    images: Images,
    train: Images,
    terminal: Terminal,
) -> dict[str, Any]:
    """Report the near-duplicates of training images, and the score without them, as JSON values."""
    with terminal.progress(QUIET_SECONDS) as show_progress:
        overlap = find_overlap(
            task, logits, images, train, partial(show_progress, "comparing images")
        )
    if len(overlap.rows):
        terminal.say("", str(overlap))
        terminal.remark(
            "near-duplicates: to keep them in one split, see lamina data duplicates DATA --groups"
            " FILE.csv"
        )
    return overlap.to_json()
