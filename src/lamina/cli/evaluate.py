"""lamina evaluate: the metrics of a run's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.choices import choose_evaluated_data, open_predictor
from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import DataError


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
    data, _ = choose_evaluated_data(run, options.data, predictor, terminal)
    split = options.split or ("test" if data.test is not None else "val")
    if split not in data.splits:
        raise DataError(f"{data.name} has no {split} split. It has: {', '.join(data.splits)}.")
    views = views_of(run.record.recipe) if options.tta else ONE_VIEW
    if options.tta and len(views) == 1:
        terminal.remark("--tta has no effect: training neither flipped nor shifted images")
    report = evaluate(predictor.model, data.splits[split], views)
    report = dataclasses.replace(report, data_name=data.name, data_fingerprint=data.fingerprint)
    terminal.say(*str(report).split("\n"))
    terminal.emit("report", run=str(options.run), **report.to_json())
    return 0
