"""lamina predict: what is on pictures, by a run's model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lamina.cli.choices import load_run_model
from lamina.cli.loading import loading
from lamina.cli.terminal import Terminal, parse_options
from lamina.errors import DataError

if TYPE_CHECKING:
    from lamina.training.task import Task

# A few pictures take a millisecond each; to wait for a second thread, where another process has its core, takes eighty.
PICTURES_OF_ONE_THREAD = 10


@dataclass(frozen=True)
class Options:
    """Say what is on pictures: the likeliest classes of each, or its labels or numbers."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """pictures"""
    top: int = 3
    """how many classes to tell"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] of a module of your own, which a run does not hold"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    json: bool = False
    """one JSON object a picture on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; where a picture could not be read the others are told all the same, and the status is 2."""
    options = parse_options(Options, "predict", arguments)
    if not options.images:
        raise DataError("Expected pictures after the run, got none. Give their paths.")
    if options.top < 1:
        raise DataError(f"--top was {options.top}, but takes 1 or more classes.")
    with loading():
        import torch

        from lamina.data import read_pictures
        from lamina.runs import read_run
        from lamina.training.model import predict_logits

    if len(options.images) <= PICTURES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    terminal = Terminal(as_json=options.json)
    run = read_run(options.run)
    record = run.record
    model = load_run_model(run, options.net, options.device, terminal)
    pixels, problems = read_pictures(options.images, record.in_shape, record.data.preparation.resize)
    unread = {problem.path for problem in problems}
    read = [path for path in options.images if str(path) not in unread]
    answers = record.task.probabilities(torch.from_numpy(predict_logits(model, pixels)))
    rows = []
    for path, answer in zip(read, answers.tolist(), strict=True):
        ranked = rank_answers(record.task, answer, options.top)
        terminal.emit("prediction", image=str(path), answers=dict(ranked))
        rows.append((str(path), ", ".join(_tell(record.task, name, value) for name, value in ranked)))
    if rows:
        terminal.tabulate(("picture", record.task.kind), rows, texts=2)
    for problem in problems:
        terminal.emit("problem", image=problem.path, reason=problem.reason)
        terminal.remark(f"lamina: {problem.path} could not be read: {problem.reason}")
    return 2 if problems else 0


def rank_answers(task: Task, answer: Iterable[float], top: int) -> list[tuple[str, float]]:
    """What a picture's probabilities say, the likeliest first; numbers stand in their own order, all of them."""
    named = list(zip(task.target_names, answer, strict=True))
    if task.kind == "numbers":
        return named
    return sorted(named, key=lambda pair: -pair[1])[:top]


def _tell(task: Task, name: str, value: float) -> str:
    return f"{name} {value:.4g}" if task.kind == "numbers" else f"{name} {100 * value:.1f} %"
