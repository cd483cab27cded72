"""lamina evaluate: the metrics of a run's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from lamina.cli.choices import choose_evaluated_data, choose_run_data, open_predictor
from lamina.cli.options import parse_options
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.errors import DataError, plural

if TYPE_CHECKING:
    from jaxtyping import Int64

    from lamina.data import Images


@dataclass(frozen=True)
class Options:
    """Evaluate a run's model on the images it was not trained on, or on another data set."""

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
    """also evaluate without the images that are near-duplicates of training images: seconds for thousands"""
    json: bool = False
    """print one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "evaluate", arguments)
    terminal = Terminal(as_json=options.json)
    from lamina.evaluation.evaluating import evaluate
    from lamina.evaluation.views import ONE_VIEW, views_of
    from lamina.runs.run import read_run

    run = read_run(options.run)
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
    report = evaluate(predictor.model, data.splits[split], views)
    report = dataclasses.replace(report, data_name=data.name, data_fingerprint=data.fingerprint)
    terminal.say(*str(report).split("\n"))
    found: dict[str, Any] = {}
    if options.near_duplicates:
        train = data.train if is_own else choose_run_data(run, None, terminal).train
        copies = _find_copies(data.splits[split], train, terminal)
        rest = np.setdiff1d(np.arange(report.images), copies)
        without = evaluate(predictor.model, data.splits[split].take(rest), views).score if len(rest) else None
        found = {"near_duplicates": len(copies), "score_without": None if without is None else without.value}
        shown = "none is left" if without is None else f"{without} without them"
        what = plural(len(copies), "image is a near-duplicate", "images are near-duplicates")
        terminal.say("", f"{what} of training images{f': {shown}' if len(copies) else ''}")
    terminal.emit("report", run=str(options.run), **report.to_json(), **found)
    return 0


def _find_copies(images: Images, train: Images, terminal: Terminal) -> Int64[np.ndarray, " m"]:
    """The images that are near-duplicates of training images."""
    from lamina.insight.duplicates import find_copies

    with terminal.progress(QUIET_SECONDS) as show_progress:
        pairs = find_copies(
            images.pixels, train.pixels, lambda done, total: show_progress("comparing pictures", done, total)
        )
    return np.unique(np.array([pair.first for pair in pairs], np.int64))
