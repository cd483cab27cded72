"""lamina evaluate: print the metrics of a run's model."""

from __future__ import annotations

import dataclasses
from typing import Any

from lamina.cli.models import choose_evaluated_data, choose_run_data, load_predictor
from lamina.cli.near_duplicates import report_overlap
from lamina.cli.options.evaluate_options import EvaluateOptions
from lamina.cli.terminal import Terminal
from lamina.errors import DataError
from lamina.evaluation.evaluating import evaluate_with_logits
from lamina.evaluation.views import ONE_VIEW, views_of
from lamina.insight.similarity import UNASKED_SECONDS, estimate_seconds


def run(options: EvaluateOptions, terminal: Terminal) -> int:
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    data, is_own = choose_evaluated_data(run, options.data, predictor, terminal)
    split = options.split or ("test" if data.test is not None else "val")
    if options.near_duplicates and split == "train":
        raise DataError(
            "--near-duplicates compares images with the training images, but --split is train. Use --split test."
        )
    if split not in data.splits:
        raise DataError(
            f"{data.name} has no {split} split; it has {', '.join(data.splits)}. Use --split {next(iter(data.splits))}."
        )
    views = views_of(run.record.recipe) if options.tta else ONE_VIEW
    if options.tta and len(views) == 1:
        terminal.remark("warning: --tta has no effect, because the recipe uses neither flip nor translate_px")
    images = data.splits[split]
    report, logits = evaluate_with_logits(predictor.model, images, views)
    report = dataclasses.replace(report, data_name=data.name, data_fingerprint=data.fingerprint)
    terminal.say(*str(report).split("\n"))
    found: dict[str, Any] = {}
    seconds = estimate_seconds(len(images), len(data.train), images.shape)
    is_unasked = options.near_duplicates is None and is_own and split != "train"
    if options.near_duplicates or (is_unasked and seconds <= UNASKED_SECONDS):
        train = data.train if is_own else choose_run_data(run, None, terminal).train
        found = report_overlap(predictor.task, logits, images, train, terminal)
        if options.near_duplicates and not found["near_duplicates"]:
            terminal.say("", f"no {split} image is a near-duplicate of a training image")
    elif is_unasked:
        terminal.remark(
            f"near-duplicates of training images: search skipped, because it may take {seconds:.0f} s. To search, "
            "use --near-duplicates."
        )
    terminal.emit("report", run=str(run.path), **report.to_json(), **found)
    return 0
