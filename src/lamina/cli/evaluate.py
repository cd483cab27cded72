"""lamina evaluate: the metrics of a run's model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lamina.cli.choices import choose_evaluated_data, choose_run_data, open_predictor
from lamina.cli.options import parse_options
from lamina.cli.overlap import UNASKED_SECONDS, say_overlap
from lamina.cli.terminal import Terminal
from lamina.errors import DataError


@dataclass(frozen=True)
class Options:
    """Evaluate a run's model on the images it was not trained on, or on another data set.

    Where some of them are near-duplicates of training images, the figure without these is given too.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path, all of it evaluated unless it has splits of its own; by default the run's own data set"""
    split: Annotated[
        Literal["train", "val", "test"] | None, tyro.conf.arg(metavar="{train,val,test}", help_behavior_hint="")
    ] = None
    """which images; by default test, or val if there is no test"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] that makes your own module; a run stores only its weights"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    tta: bool = False
    """test-time augmentation: for images the model is unsure about, average over mirrored and shifted views, as in
    training"""
    near_duplicates: bool = False
    """look for near-duplicates of training images even where that takes more than 5 seconds, and on other data"""
    json: bool = False
    """print one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "evaluate", arguments)
    terminal = Terminal(as_json=options.json)
    from lamina.evaluation.evaluating import evaluate_with_logits
    from lamina.evaluation.views import ONE_VIEW, views_of
    from lamina.insight.duplicates import estimate_seconds
    from lamina.runs.run import load_run

    run = load_run(options.run)
    predictor = open_predictor(run, options.net, options.device, terminal)
    data, is_own = choose_evaluated_data(run, options.data, predictor, terminal)
    split = options.split or ("test" if data.test is not None else "val")
    if options.near_duplicates and split == "train":
        raise DataError("--near-duplicates is about images that were not trained on. Choose another split.")
    if split not in data.splits:
        raise DataError(f"{data.name} has no {split} split. It has: {', '.join(data.splits)}.")
    views = views_of(run.record.recipe) if options.tta else ONE_VIEW
    if options.tta and len(views) == 1:
        terminal.remark("--tta has no effect: training neither flipped nor shifted images")
    images = data.splits[split]
    report, logits = evaluate_with_logits(predictor.model, images, views)
    report = dataclasses.replace(report, data_name=data.name, data_fingerprint=data.fingerprint)
    terminal.say(*str(report).split("\n"))
    found: dict[str, Any] = {}
    seconds = estimate_seconds(len(images), len(data.train), math.prod(images.shape))
    if options.near_duplicates or (is_own and split != "train" and seconds <= UNASKED_SECONDS):
        train = data.train if is_own else choose_run_data(run, None, terminal).train
        found = say_overlap(predictor.task, logits, images, train, terminal)
        if options.near_duplicates and not found["near_duplicates"]:
            terminal.say("", f"none of the {split} images is a near-duplicate of a training image")
    elif is_own and split != "train":
        terminal.remark(
            "near-duplicates of training images were not looked for, as that may take "
            f"{seconds:.0f} s. Use --near-duplicates."
        )
    terminal.emit("report", run=str(options.run), **report.to_json(), **found)
    return 0
