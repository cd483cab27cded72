"""lamina evaluate: print the metrics of a run's model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from lamina.cli.models import choose_run_data, load_predictor
from lamina.cli.options import Evaluate
from lamina.cli.output import check_output, format_csv, writing
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.data import NAMES, Dataset, Images, load_data, load_to_evaluate
from lamina.data.arrays import find_digests
from lamina.data.description import describe_data
from lamina.data.load import find_prepared, full_source
from lamina.errors import DataError, LaminaWarning, name_some, plural
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictions import make_prediction, name_columns
from lamina.evaluation.predictor import Predictor
from lamina.files import open_atomically
from lamina.runs.run import Run, correct_outputs, find_outputs, load_run, score_outputs
from lamina.text import guard
from lamina.training.prediction import predict_logits
from lamina.training.task import Task


def run(options: Evaluate, terminal: Terminal) -> int:

    if options.output is not None:
        check_output(options.output, (".csv",))
    if options.data is None and "labels_from" in options.preparation:
        return _score_corrected(options, terminal)
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    dataset, is_of_run = _load_data(run, predictor, options, terminal)
    images = _choose_split(dataset, options)
    split = images.split
    began = time.perf_counter()
    logits = predict_logits(predictor.model, images.pixels)
    report = score_logits(predictor.task, logits, images, time.perf_counter() - began)
    report = replace(report, data_name=dataset.name, data_fingerprint=dataset.fingerprint)
    terminal.say(*str(report).split("\n"))
    values: dict[str, Any] = {}
    # leaks of its own data set are known
    if not is_of_run or (run.record.started_from and split != "train"):
        values |= report_training_images(run, images, terminal)
    if options.output is not None:
        outputs = _list_outputs(run, predictor.task, images, logits, is_of_run)
        _save_table(options.output, predictor.task, outputs)
        count = sum(len(part.names) for part in outputs)
        terminal.say("", f"{options.output}: {count:,} images")
    terminal.emit("report", run=str(run.path), **report.to_json(), **values)
    return 0


def _score_corrected(options: Evaluate, terminal: Terminal) -> int:
    """Score the run on its own images, with corrected labels."""
    others = [name for name in options.preparation if name != "labels_from"]
    if others:
        raise DataError(
            "Corrected labels are compared with the stored logits of the run. Leave out"
            f" {options.preparation.flags_of(others)}."
        )
    reason = "The stored logits of the run are scored, so no model runs."
    refuse(options, reason, "net", "device", "unknown")
    run = load_run(options.run)
    stored = find_outputs(run, options.split)
    outputs, effect = correct_outputs(run, stored, options.preparation["labels_from"])
    report = score_outputs(run, outputs)
    corrected = plural(effect.corrected, "label", "labels")
    terminal.remark(f"corrections: {corrected} corrected, {effect.excluded:,} images excluded")
    if effect.not_found:
        terminal.remark(
            f"corrections: {plural(len(effect.not_found), 'image is', 'images are')} not in"
            f" {outputs.split}: {name_some(effect.not_found)}"
        )
    terminal.say(*str(report).split("\n"))
    if options.output is not None:
        raw = replace(outputs, logits=outputs.raw_logits(run.task))
        _save_table(options.output, run.task, [raw])
        terminal.say("", f"{options.output}: {len(raw.names):,} images")
    terminal.emit(
        "report",
        run=str(run.path),
        **report.to_json(),
        corrected=effect.corrected,
        excluded=effect.excluded,
    )
    return 0


def _load_data(
    run: Run, predictor: Predictor, options: Evaluate, terminal: Terminal
) -> tuple[Dataset, bool]:
    """Load the run's data or another data set; the second value is whether it is the run's."""
    source = options.data
    task = predictor.task
    changes = options.preparation
    recorded = run.record.data
    if (
        source is None
        or full_source(source) == recorded.source
        or _is_moved_to(run, source, terminal)
    ):
        if changes:
            advice = f"Leave out {changes.flags_of()}."
            if source is not None and "labels_from" in changes:
                advice = "To score its images with corrected labels, leave out --data."
            raise DataError(
                f"{run.path} was trained on this data set and loads it in the same way. {advice}"
            )
        return choose_run_data(run, source, terminal), True
    # corrections and names of folders belong to the run's own data
    values: dict[str, Any] = {"labels_from": (), "splits": (), **changes}
    values["size_px"] = predictor.size_px
    values["task"] = task.kind.name
    preparation = replace(recorded.preparation, **values)
    with terminal.progress("preparing images", quiet_seconds=0) as progress:
        dataset = load_to_evaluate(
            source, preparation, task.target_names, options.unknown, progress=progress
        )
    for line in describe_data(dataset, "as requested"):
        terminal.remark(line)
    return dataset, False


def _is_moved_to(run: Run, source: str, terminal: Terminal) -> bool:
    """Whether a run's data set is missing from its original path and has moved to ``source``."""
    recorded = run.record.data
    if {recorded.source, source} & set(NAMES) or Path(recorded.source).exists():
        return False
    try:
        with (
            warnings.catch_warnings(action="ignore", category=LaminaWarning),
            terminal.progress("preparing images", quiet_seconds=0) as progress,
        ):
            dataset = load_data(source, recorded.preparation, progress=progress)
    except DataError:
        return False
    return dataset.fingerprint == recorded.fingerprint


def _choose_split(dataset: Dataset, options: Evaluate) -> Images:
    split = options.split
    if split is None:
        split = "val"
        if dataset.test is not None:
            split = "test"
    if split not in dataset.splits:
        raise DataError(
            f"{dataset.name} has no {split} split; it has {', '.join(dataset.splits)}. Use --split"
            f" {next(iter(dataset.splits))}."
        )
    return dataset.splits[split]


def _list_outputs(
    run: Run, task: Task, images: Images, logits: Float32[np.ndarray, "n k"], is_of_run: bool
) -> list[Outputs]:
    """The outputs for the images, and for the folds of a cross-validation."""
    folds = None
    fold = run.record.data.preparation.folds()
    if is_of_run and fold and fold[0] and images.split == "test":
        folds = np.full(len(images), fold[0])
    outputs = [Outputs(images.split, logits, images.targets, images.names, folds, images.groups)]
    if is_of_run and images.split != "train":
        out_of_fold = run.folder.load_out_of_fold(run.record)
        if out_of_fold is not None:
            outputs.append(replace(out_of_fold, logits=out_of_fold.raw_logits(task)))
    return outputs


def _save_table(file: Path, task: Task, outputs: Sequence[Outputs]) -> None:
    """Write a row for each image; for regression, the target and the prediction of each number."""
    columns = name_columns(task)
    targets = ["target"]
    if task.kind.name == "regression":
        targets = [f"target({name})" for name in columns]
        columns = [f"predicted({name})" for name in columns]
    heads = map(guard, ("image", *targets, *columns, "split", "fold"))
    with (
        writing(file, "The file is unchanged; use another --output."),
        open_atomically(file) as opened,
    ):
        opened.write(format_csv([heads]))
        for part in outputs:
            rows = task.probabilities(torch.from_numpy(part.logits)).tolist()
            for place, row in enumerate(rows):
                name = part.names[place]
                target = part.targets[place]
                fold = ""
                if part.folds is not None:
                    fold = str(part.folds[place])
                if task.kind.name == "regression":
                    cells = [f"{number:.7g}" for number in target.tolist()]
                else:
                    cells = [guard(";".join(task.kind.list_names(target, task.target_names)))]
                cells += make_prediction(task, name, row).cells()
                opened.write(format_csv([[guard(name), *cells, part.split, fold]]))


def report_training_images(run: Run, images: Images, terminal: Terminal) -> dict[str, Any]:
    """Report how many images are among the run's training images; as JSON values."""
    recorded = run.record.data
    dataset = find_prepared(recorded.source, recorded.preparation, recorded.fingerprint)
    if dataset is None or dataset.train.shape != images.shape:
        terminal.remark(
            "training images: not compared, because they are not in this machine's cache at this"
            " size"
        )
        return {}
    count = int(find_digests(images.pixel_digests, dataset.train.pixel_digests).sum())
    if count:
        terminal.remark(
            f"warning: {count:,} of the {len(images):,} images are also among the training images"
            " (identical pixels), so the score is too good for new images. Evaluate on images that"
            " are not among them."
        )
    return {"training_images": count}
