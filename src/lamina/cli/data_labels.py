"""lamina data labels: labels worth checking, hard classes and images, and outliers."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_evaluated_data, load_predictor
from lamina.cli.options.data_options import DataLabelsOptions
from lamina.cli.output import check_issues_file, check_output, save_sheet, save_table
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images, Preparation
from lamina.data.corrections import ADVICE, COLUMNS
from lamina.data.matching import ClassMatch
from lamina.errors import DataError, escape, plural
from lamina.evaluation.outputs import Outputs
from lamina.insight.confident_learning import PRECISION, LabelIssues, judge_labels
from lamina.insight.confusions import HARDEST, PAIR_HEADS, Confusions, find_confusions
from lamina.insight.neighbors import find_outliers
from lamina.studies.analyses import check_labels, choose_checkers
from lamina.targets import SINGLE_LABEL
from lamina.training.device import choose_device
from lamina.training.prediction import predict_with_features
from lamina.training.task import Task


def run(options: DataLabelsOptions, terminal: Terminal) -> int:
    _check(options)
    if options.run is not None:
        _judge_by_run(options, options.run, terminal)
        return 0
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    nets = choose_checkers(dataset, device=options.device, pretrained=options.pretrained)
    terminal.remark(f"device: {choose_device(options.device)}")
    terminal.remark(
        f"nets: {' and '.join(map(str, nets))}; four-fold cross-validation: each net predicts"
        " images it was not trained on"
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        labels = check_labels(dataset, nets, partial(show_progress, "checking labels"))
    _print_issues(labels, dataset, options, terminal)
    return 0


def _check(options: DataLabelsOptions) -> None:
    if options.top < 1:
        raise DataError(f"--top is {options.top}; it must be at least 1. Use --top 10.")
    for output in options.output:
        check_issues_file(output)
    if options.run is None and options.hard is not None:
        raise DataError("--hard draws images that are hard for the model of a run. Add --with RUN.")
    if options.run is None and options.net is not None:
        raise DataError("--net defines the net of a run, but there is no run. Add --with RUN.")
    if options.run is not None and not options.pretrained:
        raise DataError(
            "--no-pretrained is for nets that lamina trains, but --with uses the model of a run."
            " Use only one of them."
        )
    if options.hard is not None:
        check_output(options.hard, (".png",), "--hard")


def _print_issues(
    labels: LabelIssues, dataset: Dataset, options: DataLabelsOptions, terminal: Terminal
) -> None:
    terminal.say(*labels.summary_lines())
    for warning in labels.warnings():
        terminal.remark(f"warning: {warning}")
    terminal.tabulate(*labels.table(), texts=4, top=options.top)
    for file in options.output:
        if file.suffix.lower() == ".csv":
            _save_corrections(labels, file, options, terminal)
            continue
        from lamina.drawing.contact_sheet import build_label_issues_sheet

        count = plural(len(labels.issues), "label", "labels")
        sheet = build_label_issues_sheet(labels, f"{dataset.name}: {count} worth checking")
        save_sheet(sheet, file)
        terminal.remark(f"images with label issues: {file}")
    if labels.issues:
        if not options.output:
            terminal.remark(
                "To draw these images, use --output FILE.png; to correct their labels, --output"
                " FILE.csv."
            )
        terminal.remark(
            f"{PRECISION} Do not remove test images, because only easy ones would remain."
        )
    terminal.emit("labels", **labels.to_json())


def _save_corrections(
    labels: LabelIssues, file: Path, options: DataLabelsOptions, terminal: Terminal
) -> None:
    save_table(file, [COLUMNS, *labels.corrections()])
    earlier = options.preparation.get("labels_from", ())
    words = [
        "lamina",
        "train",
        "--data",
        options.data,
        "--labels-from",
        *map(str, (*earlier, file)),
    ]
    advice = "There are none."
    if labels.issues:
        advice = f"{ADVICE} Then run {shlex.join(words)}."
    terminal.remark(f"label issues: {file}. {advice}")


def _judge_by_run(options: DataLabelsOptions, path: Path, terminal: Terminal) -> None:
    run, predictor = load_predictor(path, options.net, options.device, terminal)
    task = predictor.task
    dataset, is_own = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, ClassMatch()
    )
    outputs = []
    features = []
    probabilities = {}
    with terminal.progress(QUIET_SECONDS) as show_progress:
        for split, images in dataset.splits.items():
            progress = partial(show_progress, f"predicting {split}")
            logits, part = predict_with_features(predictor.model, images.pixels, progress)
            outputs.append(Outputs.collect(task, logits, images))
            features.append(part)
            probabilities[split] = task.probabilities(torch.from_numpy(logits)).numpy()
    if task.kind.has_classes:
        labels = judge_labels(dataset.splits, probabilities)
        _print_issues(labels, dataset, options, terminal)
        if is_own:
            terminal.say(
                "train: the model was trained on these images and may have memorized incorrect"
                " labels; without --with, lamina trains nets on other images"
            )
    held_out = outputs
    if is_own and len(outputs) > 1:
        held_out = [part for part in outputs if part.split != "train"]
    elif is_own:
        terminal.remark(
            "warning: the data set has no val or test split; hard images come from train, which the"
            " model was trained on"
        )
    confusions = find_confusions(task, held_out, max(options.top, HARDEST))
    images_of_splits = [dataset.splits[part.split] for part in held_out]
    title = escape(f"{dataset.name}: hard for {path}")
    _print_confusions(task, confusions, options.top, terminal)
    _draw_hard(confusions, images_of_splits, options.hard, title, terminal)
    values = confusions.to_json()
    terminal.emit("hard", **values | {"losses": values["losses"][: options.top]})
    outliers = find_outliers([*dataset.splits.values()], torch.cat(features), options.top)
    terminal.say("", "outliers (images whose features are unlike all others):")
    terminal.tabulate(*outliers.table(), texts=2)
    terminal.emit("outliers", **outliers.to_json())


def _print_confusions(task: Task, confusions: Confusions, top: int, terminal: Terminal) -> None:
    terminal.say("", f"hard classes and images, among {confusions.describe_images()}:")
    if confusions.pairs:
        # with two classes, the pairs contain the same values
        if task.kind is SINGLE_LABEL and task.outputs > 2:
            classes = [
                (confusion.target, *confusion.describe()) for confusion in confusions.classes
            ]
            terminal.tabulate(("true", "incorrect", *PAIR_HEADS[-3:]), classes, top=top)
            terminal.say("")
        terminal.tabulate(*confusions.table(), texts=3, top=top)
    elif task.kind.has_classes:
        terminal.say("all predictions are correct")
    heads, rows = confusions.image_table()
    terminal.say("", "largest losses:")
    terminal.tabulate(heads, rows[:top], texts=4)


def _draw_hard(
    confusions: Confusions, splits: list[Images], file: Path | None, title: str, terminal: Terminal
) -> None:
    if file is None:
        terminal.remark("To draw these images, use --hard FILE.png.")
        return
    from lamina.drawing.contact_sheet import build_hard_sheet

    pixels = [np.asarray(image) for images in splits for image in images.pixels]
    save_sheet(build_hard_sheet(confusions, pixels, title), file)
    terminal.remark(f"hard images: {file}")
