"""The IMAGE argument: find the images to predict."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lamina.cli.terminal import Terminal
from lamina.data.image_inputs import find_images
from lamina.data.images import OTHER_FILE, Problem
from lamina.data.load import EXAMPLES
from lamina.errors import DataError, name_some, plural


def choose_images(paths: tuple[Path, ...], terminal: Terminal) -> tuple[list[Path], list[Problem]]:
    """Find the images to predict, and report arguments that match none; ``-`` reads stdin."""
    if not paths:
        raise DataError("No images given. Add image files, folders or patterns after RUN.")
    named: list[str | Path] = []
    for path in paths:
        if str(path) == "-":
            text = os.fsdecode(sys.stdin.buffer.read())  # names need not be UTF-8
            named += filter(None, text.replace("\r\n", "\n").split("\n"))
        else:
            named.append(path)
    images, problems = find_images(named)
    unused = [problem.path for problem in problems if problem.reason == OTHER_FILE]
    if unused:
        terminal.remark(
            f"not used: {plural(len(unused), 'file', 'files')}: {name_some(unused, EXAMPLES)}"
        )
    failed = [problem for problem in problems if problem.reason != OTHER_FILE]
    if failed and not images:  # before the model is loaded
        for problem in failed:
            terminal.emit("problem", image=problem.path, reason=problem.reason)
        raise DataError(name_some([f"{problem.path}: {problem.reason}" for problem in failed]))
    for problem in failed:
        terminal.report_problem(problem.path, problem.reason)
    return images, failed
