"""lamina data --labels: find label issues with nets trained by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from lamina.cli.near_duplicates import Sight
from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import save_sheet, save_table
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset
from lamina.data.corrections import ADVICE, COLUMNS
from lamina.data.load import check_learnable
from lamina.data.splits import Split
from lamina.errors import plural
from lamina.insight.confident_learning import LabelFindings, judge_labels
from lamina.insight.similarity import find_near_duplicates, group_copies
from lamina.studies.cross_prediction import check_dealable, choose_nets, cross_predict, limit_groups
from lamina.text import format_percent
from lamina.training.device import choose_device
from lamina.training.pretrained import find_all_at_hand

NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many images, near-duplicates are kept in the same fold; beyond it, only identical
images are."""


def judge_by_folds(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Report label issues, according to nets that were trained on other images."""
    train = dataset.train
    check_dealable(train)
    check_learnable(dataset)
    pretrained = next(iter(find_all_at_hand()), None) if options.pretrained else None
    nets = tuple(
        replace(net, recipe=replace(net.recipe, device=options.device))
        for net in choose_nets(train, pretrained)
    )
    terminal.remark(f"device: {choose_device(options.device)}")
    terminal.remark(
        f"nets: {' and '.join(map(str, nets))}; four-fold cross-validation: each net predicts"
        " images it was not trained on"
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        is_small = len(train) <= NEAR_DUPLICATES_IMAGES
        compare = partial(find_near_duplicates, progress=partial(show_progress, "comparing images"))
        pairs = compare(train.pixels) if is_small else ()
        groups, divided = limit_groups(train, group_copies(train.pixels, pairs, train.groups))
        if divided:
            or_group, groups_and = (" or of one group", "groups and ") if train.groups else ("", "")
            terminal.remark(
                f"warning: {divided:,} training images are near-duplicates of each other{or_group},"
                f" too many to be in one fold. lamina keeps only {groups_and}identical images in"
                " one fold, and divides these if there are too many. A net may have been trained"
                " on a copy of an image whose label it checks."
            )
        train, *others = dataset.splits.values()
        prediction = cross_predict(
            nets,
            train,
            others,
            groups=groups,
            progress=partial(show_progress, "checking labels"),
        )
    probabilities = (prediction.held_out, *prediction.others)
    findings = {
        images.split: judge_labels(images, values)
        for images, values in zip(dataset.splits.values(), probabilities, strict=True)
    }
    report_label_issues(dataset, findings, options, terminal)


def report_label_issues(
    dataset: Dataset,
    findings: Mapping[Split, LabelFindings],
    options: DataOptions,
    terminal: Terminal,
) -> None:
    predictor = "the model"
    agreeing = "model agrees"
    if options.labels:
        predictor = "nets trained on other images"
        agreeing = "nets agree"
    for split, judged in findings.items():
        total = dataset.splits[split].targets.size
        terminal.say(
            f"{split}: {len(judged.issues):,} of {plural(total, 'label is', 'labels are')} likely"
            f" incorrect ({100 * len(judged.issues) / total:.1f} %); for"
            f" {judged.disagreements:,}, another label is more probable"
        )
        if judged.agreement.is_weak:
            terminal.remark(
                f"warning: the {agreeing} with only {format_percent(judged.agreement.value)} of the"
                f" {split} labels, averaged over classes (by chance:"
                f" {format_percent(judged.agreement.guessed)}). A weak model flags correct labels,"
                " so most of the listed labels are likely correct. Train a better net, or add"
                " images."
            )
    ordered = [
        (dataset.splits[split], issue)
        for split, judged in findings.items()
        for issue in judged.issues
    ]
    ordered.sort(key=lambda pair: -pair[1].score)
    rows = []
    for images, issue in ordered:
        name = Sight(images, issue.row).name
        score = f"{issue.score:.4f}"
        reason = issue.explain(predictor)
        rows.append((name, images.split, issue.given, issue.likely, score, reason, ""))
    terminal.tabulate(COLUMNS[:5], [row[:5] for row in rows], texts=4, top=options.top)
    for file in options.output:
        if file.suffix.lower() == ".csv":
            save_table(file, [COLUMNS, *rows])
            earlier = options.preparation.get("labels_from", ())
            train = (
                f"lamina train --data {options.data} --labels-from"
                f" {' '.join(map(str, (*earlier, file)))}"
            )
            advice = f"{ADVICE} Then run {train}." if ordered else "There are none."
            terminal.remark(f"label issues: {file}. {advice}")
            continue
        from lamina.drawing.contact_sheet import build_label_issues_sheet

        title = (
            f"{dataset.name}: {plural(len(ordered), 'label that is', 'labels that are')} likely"
            " incorrect"
        )
        save_sheet(build_label_issues_sheet(ordered, title), file)
        terminal.remark(f"images with label issues: {file}")
    if ordered and not options.output:
        terminal.remark(
            "To draw these images, use --output FILE.png; to correct their labels, --output"
            " FILE.csv."
        )
    if ordered:
        terminal.remark(
            "Look at each image before you correct its label: some are correct. Do not remove test"
            " images, because only easy ones would remain."
        )
    terminal.emit(
        "labels",
        label_issues=[
            Sight(images, issue.row).to_json()
            | {"given": issue.given, "likely": issue.likely, "score": issue.score}
            for images, issue in ordered
        ],
        agreement={split: judged.agreement.value for split, judged in findings.items()},
    )
