"""What a command says where a score includes near-duplicates of training images."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32

from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Images
from lamina.insight.duplicates import find_overlap
from lamina.training.task import Task


def say_overlap(
    task: Task, logits: Float32[np.ndarray, "n k"], images: Images, train: Images, terminal: Terminal
) -> dict[str, Any]:
    """Say how many images are near-duplicates of training images, and the score without them; as JSON values."""
    with terminal.progress(QUIET_SECONDS) as show_progress:
        overlap = find_overlap(task, logits, images, train, partial(show_progress, "comparing pictures"))
    if len(overlap.rows):
        terminal.say("", str(overlap))
    score = None if overlap.report is None else overlap.report.score.value
    return {"near_duplicates": len(overlap.rows), "score_without": score}
