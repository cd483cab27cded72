"""lamina data labels: labels worth checking, by nets that are trained for this."""

from __future__ import annotations

import shlex
from pathlib import Path

from lamina.cli.data_argument import choose_data
from lamina.cli.options import DataLabels
from lamina.cli.output import check_new, check_output, save_sheet, save_table
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.data.corrections import ADVICE, COLUMNS
from lamina.errors import plural
from lamina.insight.confident_learning import PRECISION, LabelIssues
from lamina.studies.analyses import check_labels, choose_checkers
from lamina.training.device import choose_device


def run(options: DataLabels, terminal: Terminal) -> int:

    for file in options.output:
        check_output(file, (".csv", ".png"))
        if file.suffix.lower() == ".csv":
            check_new(file, "corrections")
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    nets = choose_checkers(dataset, device=options.device, pretrained=options.pretrained)
    terminal.remark(f"device: {choose_device(options.device)}")
    terminal.remark(
        f"nets: {' and '.join(map(str, nets))}; four-fold cross-validation: each net predicts"
        " images it was not trained on"
    )
    with terminal.progress("checking labels") as progress:
        labels = check_labels(dataset, nets, progress)
    terminal.say(*labels.summary_lines())
    for warning in labels.warnings():
        terminal.remark(f"warning: {warning}")
    terminal.tabulate(*labels.table(), texts=4, top=options.top)
    for file in options.output:
        if file.suffix.lower() == ".csv":
            _save_corrections(labels, file, options, terminal)
        else:
            _save_sheet(labels, file, dataset.name, terminal)
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
    return 0


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


def _save_sheet(labels: LabelIssues, file: Path, name: str, terminal: Terminal) -> None:
    from lamina.drawing.contact_sheet import build_label_issues_sheet  # loads matplotlib

    count = plural(len(labels.issues), "label", "labels")
    save_sheet(build_label_issues_sheet(labels, f"{name}: {count} worth checking"), file)
    terminal.remark(f"images with label issues: {file}")
