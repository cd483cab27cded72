"""lamina data --labels: likely wrong labels, found by nets that are trained for it on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lamina.cli.near_duplicates import Sight
from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.data.duplicates import digest_rows
from lamina.data.load import check_learnable
from lamina.data.splits import Split
from lamina.errors import plural
from lamina.insight.confident_learning import Agreement, LabelIssue, check_labels
from lamina.insight.folds import check_dealable, choose_plans, limit_groups, predict_by
from lamina.insight.similarity import group_copies
from lamina.text import format_percent
from lamina.training.device import choose_device
from lamina.training.pretrained import find_at_hand

NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many images, near-duplicates are found first and are in one fold; among more, identical images are."""


def judge_by_folds(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Say which labels nets that were trained on other images find wrong."""
    train = dataset.train
    check_dealable(train)
    check_learnable(dataset)
    plans = choose_plans(train, find_at_hand() if options.pretrained else None)
    device = choose_device(options.device)
    terminal.remark(f"device: {device}")
    terminal.remark(
        f"nets: {' and '.join(map(str, plans))}; four of each, each trained without a different quarter of the images"
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        groups: Sequence[Any]
        if len(train) > NEAR_DUPLICATES_IMAGES:
            groups = digest_rows(train.pixels)
        else:
            groups = group_copies(train.pixels, partial(show_progress, "comparing images"))
        groups, divided = limit_groups(train, groups)
        if divided:
            terminal.remark(
                f"{divided:,} training images are copies of each other, or nearly, and too many of their class or of "
                "all to be in one fold. Only identical ones are kept together, or none where these are too many, "
                "so a net may have been told the label of an image's copy."
            )
        findings = check_labels(
            dataset,
            lambda images, others: predict_by(
                plans, images, others, groups=groups, device=device.value,
                progress=partial(show_progress, "judging labels"),
            ),
        )  # fmt: skip
    for split, label_issues in findings.label_issues.items():
        terminal.say(count_label_issues(dataset.splits[split], label_issues, findings.disagreements[split]))
        warn_if_weak("the nets agree", split, findings.agreements[split], terminal)
    terminal.say(
        f"of {findings.injected:,} labels that were exchanged between images at random for a test, "
        f"{findings.injected_found} {'was' if findings.injected_found == 1 else 'were'} found "
        f"({100 * findings.injected_recall:.0f} %)"
    )
    report_label_issues(
        dataset, findings.label_issues, findings.agreements, findings.injected_recall, options, terminal
    )


def count_label_issues(images: Images, label_issues: Sequence[LabelIssue], disagreements: int) -> str:
    """How many labels are likely wrong, and for how many the nets merely find another more probable."""
    total = images.targets.size
    return (
        f"{images.split}: {len(label_issues):,} of {plural(total, 'label is', 'labels are')} likely wrong "
        f"({100 * len(label_issues) / total:.1f} %); another is more probable for {disagreements:,}"
    )


def warn_if_weak(who: str, split: Split, agreement: Agreement, terminal: Terminal) -> None:
    """Warn that many labels listed are right, where the nets hardly agree with any."""
    if agreement.is_weak:
        terminal.remark(
            f"warning: {who} with only {format_percent(agreement.value)} of the labels of {split}, averaged over the "
            f"classes (guessing: {format_percent(agreement.guessed)}). Most of the labels listed are likely right, "
            "unless very many are wrong: this needs a better net, or more images."
        )


def report_label_issues(
    dataset: Dataset,
    label_issues: Mapping[Split, Sequence[LabelIssue]],
    agreements: Mapping[Split, Agreement],
    injected_recall: float | None,
    options: DataOptions,
    terminal: Terminal,
) -> None:
    """Print the labels that are likely wrong, and draw them if that was asked for."""
    ordered = sorted(
        ((dataset.splits[split], label_issue) for split, found in label_issues.items() for label_issue in found),
        key=lambda pair: -pair[1].score,
    )
    found = [(Sight(images, one.row), one) for images, one in ordered]
    rows = [(sight.name, sight.images.split, one.given, one.suggested, f"{one.score:.3f}") for sight, one in found]
    terminal.tabulate(("image", "split", "given", "suggested", "score"), rows, texts=4, top=options.top)
    if options.label_issues is not None:
        from lamina.drawing.contact_sheet import build_label_issues_sheet

        title = f"{dataset.name}: {plural(len(ordered), 'label that is', 'labels that are')} likely wrong"
        save_sheet(build_label_issues_sheet(ordered, title), options.label_issues)
        terminal.remark(f"label_issues: {options.label_issues}")
    elif ordered:
        terminal.remark("--label-issues FILE.png draws them.")
    if ordered:
        terminal.remark(
            "Look before you correct a label: some are right. Leave no test image out: the easy ones would remain."
        )
    terminal.emit(
        "labels",
        label_issues=[
            sight.to_json() | {"given": one.given, "suggested": one.suggested, "score": one.score}
            for sight, one in found
        ],
        agreement={split: agreement.value for split, agreement in agreements.items()},
        injected_recall=injected_recall,
    )
