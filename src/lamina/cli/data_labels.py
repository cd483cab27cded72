"""lamina data labels: labels worth checking, hard classes and images."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_evaluated_data, load_predictor
from lamina.cli.options import DataLabels
from lamina.cli.output import check_new, check_output, save_sheet, save_table
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.data import Dataset, Preparation
from lamina.data.corrections import ADVICE, COLUMNS
from lamina.errors import escape, plural
from lamina.evaluation.outputs import Outputs
from lamina.insight.confident_learning import PRECISION, LabelIssues, judge_labels
from lamina.insight.confusions import HARDEST, PAIR_HEADS, Confusions, find_confusions
from lamina.studies.analyses import check_labels, choose_checkers
from lamina.targets import SINGLE_LABEL
from lamina.training.device import choose_device
from lamina.training.prediction import predict_logits
from lamina.training.task import Task


def run(options: DataLabels, terminal: Terminal) -> int:

    for file in options.output:
        check_output(file, (".csv", ".png"))
        if file.suffix.lower() == ".csv":
            check_new(file, "corrections")
    if options.hard is not None:
        check_output(options.hard, (".png",), "--hard")
    if options.run is not None:
        refuse(options, "--with uses the model of a run.", "pretrained")
        _judge_by_run(options, options.run, terminal)
        return 0
    refuse(options, "Without --with RUN, lamina trains nets.", "hard", "net")
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    nets = choose_checkers(dataset, device=options.device, pretrained=options.pretrained)
    terminal.remark(f"device: {choose_device(options.device)}")
    terminal.remark(
        f"nets: {' and '.join(map(str, nets))}; four-fold cross-validation: each net predicts"
        " images it was not trained on"
    )
    with terminal.progress("checking labels") as progress:
        labels = check_labels(dataset, nets, progress)
    _print_issues(labels, dataset, options, terminal)
    return 0


def _print_issues(
    labels: LabelIssues, dataset: Dataset, options: DataLabels, terminal: Terminal
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
            terminal.hint(
                "To draw these images, use --output FILE.png; to correct their labels, --output"
                " FILE.csv."
            )
        terminal.remark(
            f"{PRECISION} Do not remove test images, because only easy images would remain."
        )
    terminal.emit("labels", **labels.to_json())


def _save_corrections(
    labels: LabelIssues, file: Path, options: DataLabels, terminal: Terminal
) -> None:
    save_table(file, [COLUMNS, *labels.corrections()])
    files = (*options.preparation.get("labels_from", ()), file)
    command = ["lamina", "train", "--data", options.data, "--labels-from", *map(str, files)]
    advice = "There are none."
    if labels.issues:
        advice = f"{ADVICE} Then run {shlex.join(command)}."
    terminal.remark(f"label issues: {file}. {advice}")


def _judge_by_run(options: DataLabels, path: Path, terminal: Terminal) -> None:

    run, predictor = load_predictor(path, options.net, options.device, terminal)
    task = predictor.task
    dataset, is_of_run = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, "error"
    )
    outputs = []
    probabilities = {}
    for split, images in dataset.splits.items():
        with terminal.progress(f"predicting {split}"):
            logits = predict_logits(predictor.model, images.pixels)
        outputs.append(Outputs.collect(task, logits, images))
        probabilities[split] = task.probabilities(torch.from_numpy(logits)).numpy()
    if task.kind.has_classes:
        _print_issues(judge_labels(dataset.splits, probabilities), dataset, options, terminal)
        if is_of_run:
            terminal.say(
                "train: the model was trained on these images and may have memorized incorrect"
                " labels; without --with, lamina trains nets on other images"
            )
    held_out = outputs
    if is_of_run and len(outputs) > 1:
        held_out = [part for part in outputs if part.split != "train"]
    elif is_of_run:
        terminal.remark(
            "warning: the data set has no val or test split; hard images come from train, which the"
            " model was trained on"
        )
    confusions = find_confusions(task, held_out, max(options.top, HARDEST))
    _print_confusions(task, confusions, options.top, terminal)
    if options.hard is None:
        terminal.hint("To draw these images, use --hard FILE.png.")
    else:
        from lamina.drawing.contact_sheet import build_hard_sheet

        pixels = [image for part in held_out for image in dataset.splits[part.split].pixels]
        title = escape(f"{dataset.name}: hard for {path}")
        save_sheet(build_hard_sheet(confusions, pixels, title), options.hard)
        terminal.remark(f"hard images: {options.hard}")
    values = confusions.to_json()
    terminal.emit("hard", **values | {"losses": values["losses"][: options.top]})


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
