"""lamina evaluate: print the metrics of a run's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.cli.models import choose_evaluated_data, choose_run_data, load_predictor
from lamina.cli.near_duplicates import report_overlap
from lamina.cli.options.evaluate_options import EvaluateOptions
from lamina.cli.output import check_output, format_csv, writing
from lamina.cli.terminal import Terminal
from lamina.data import Images
from lamina.data.load import find_prepared
from lamina.data.matching import ClassMatch
from lamina.data.option_files import read_rows
from lamina.errors import DataError
from lamina.evaluation.evaluating import evaluate_with_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictor import make_prediction
from lamina.files import open_atomically
from lamina.insight.similarity import UNASKED_SECONDS, estimate_seconds
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from lamina.text import guard
from lamina.training.task import Task


def run(options: EvaluateOptions, terminal: Terminal) -> int:
    if options.output is not None:
        check_output(options.output, (".csv",))
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    match = ClassMatch(
        options.unknown, {} if options.rename is None else read_renamed(options.rename)
    )
    data, is_own = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, match
    )
    split = options.split or ("test" if data.test is not None else "val")
    if options.near_duplicates and split == "train":
        raise DataError(
            "--near-duplicates compares images with the training images, but --split is train. Use"
            " --split test."
        )
    if split not in data.splits:
        raise DataError(
            f"{data.name} has no {split} split; it has {', '.join(data.splits)}. Use --split"
            f" {next(iter(data.splits))}."
        )
    images = data.splits[split]
    model = predictor.model
    report, logits = evaluate_with_logits(model, images)
    report = dataclasses.replace(report, data_name=data.name, data_fingerprint=data.fingerprint)
    terminal.say(*str(report).split("\n"))
    found: dict[str, Any] = {}
    # leaks of its own data set are known
    if not is_own or (run.record.started_from and split != "train"):
        found = report_training_images(run, images, terminal)
    seconds = estimate_seconds(len(images), len(data.train), images.shape)
    is_unasked = options.near_duplicates is None and is_own and split != "train"
    if options.near_duplicates or (is_unasked and seconds <= UNASKED_SECONDS):
        train = data.train if is_own else choose_run_data(run, None, terminal).train
        found |= report_overlap(predictor.task, logits, images, train, terminal)
        if options.near_duplicates and not found["near_duplicates"]:
            terminal.say("", f"no {split} image is a near-duplicate of a training image")
    elif is_unasked:
        terminal.remark(
            f"near-duplicates of training images: search skipped, because it may take {seconds:.0f}"
            " s. To search, use --near-duplicates."
        )
    if options.output is not None:
        fold = run.record.data.preparation.folds() if is_own else None
        folds = np.full(len(images), fold[0]) if fold and fold[0] and split == "test" else None
        outputs = [Outputs(split, logits, images.targets, images.names, folds)]
        if is_own and split != "train" and (others := run.folder.load_out_of_fold(run.record.task)):
            outputs.append(dataclasses.replace(others, logits=others.raw_logits(model.task)))
        _save_table(options.output, model.task, outputs)
        terminal.say("", f"{options.output}: {sum(len(one.names) for one in outputs):,} images")
    terminal.emit("report", run=str(run.path), **report.to_json(), **found)
    return 0


def _save_table(file: Path, task: Task, outputs: Sequence[Outputs]) -> None:
    """Write a row for each image; for regression, the target and the prediction of each number."""
    kind, names = task.kind, task.kind.class_names(task.target_names)
    heads = ["target", "predicted", *(f"p({name})" for name in names)]
    if kind is REGRESSION:
        heads = [
            f"{what}({name})" for what in ("target", "predicted") for name in task.target_names
        ]
    with (
        writing(file, "The file is unchanged; use another --output."),
        open_atomically(file) as opened,
    ):
        opened.write(format_csv([map(guard, ("image", *heads, "split", "fold"))]))
        for one in outputs:
            rows = task.probabilities(torch.from_numpy(one.logits)).tolist()
            folds = [""] * len(rows) if one.folds is None else map(str, one.folds)
            for name, target, row, fold in zip(one.names, one.targets, rows, folds, strict=True):
                prediction = make_prediction(task, name, row)
                values = [f"{value:.7g}" for value in prediction.values.values()]
                if kind is REGRESSION:
                    cells = [f"{number:.7g}" for number in target.tolist()]
                else:
                    given = kind.list_names(target, task.target_names)
                    predicted = prediction.predicted
                    found = (predicted,) if isinstance(predicted, str) else predicted or ()
                    cells = [guard(";".join(given)), guard(";".join(found))]
                opened.write(format_csv([[guard(name), *cells, *values, one.split, fold]]))


def read_renamed(file: Path) -> dict[str, str]:
    """The model's class for each class of the data in a CSV file."""
    rows = read_rows(str(file), "rename")
    if wrong := next((row for row in rows if len(row) != 2), None):
        raise DataError(
            f"{file} has the line {','.join(wrong)!r}; expected a class of the data and one of the"
            " model, as in doggo,dog."
        )
    return {name.strip(): renamed.strip() for name, renamed in rows}


def report_training_images(run: Run, images: Images, terminal: Terminal) -> dict[str, Any]:
    """Report how many images are among the run's training images; as JSON values."""
    origin = run.record.data
    dataset = find_prepared(origin.source, origin.preparation, origin.fingerprint)
    if dataset is None or dataset.train.shape != images.shape:
        terminal.remark(
            "training images: not compared, because they are not in this machine's cache at this"
            " size"
        )
        return {}
    trained = dataset.train.frame["digest"]
    count = images.frame["digest"].is_in(trained.implode()).sum()
    if count:
        terminal.remark(
            f"warning: {count:,} of the {len(images):,} images are also among the training images"
            " (identical pixels), so the score says too little about new images. Evaluate on images"
            " that are not."
        )
    return {"training_images": count}
