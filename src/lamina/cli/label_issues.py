"""lamina data --labels: find label issues with nets trained by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lamina.cli.near_duplicates import Sight
from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import save_sheet, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.data.corrections import COLUMNS, format_rows
from lamina.data.duplicates import digest_rows
from lamina.data.load import check_learnable
from lamina.data.splits import Split
from lamina.errors import plural
from lamina.files import write_atomically
from lamina.insight.confident_learning import Agreement, LabelIssue, check_labels
from lamina.insight.folds import check_dealable, choose_plans, limit_groups, predict_by
from lamina.insight.similarity import find_near_duplicates, group_copies
from lamina.text import format_percent
from lamina.training.device import choose_device
from lamina.training.pretrained import find_all_at_hand

NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many images, near-duplicates are kept in the same fold; beyond it, only identical images are."""
HOW_TO_CORRECT = (
    "Delete the rows that you disagree with, or write the right labels in the column given, then run lamina train "
    "--labels-from {file}."
)


def judge_by_folds(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Report label issues, according to nets that were trained on other images."""
    train = dataset.train
    check_dealable(train)
    check_learnable(dataset)
    plans = choose_plans(train, next(iter(find_all_at_hand()), None) if options.pretrained else None)
    device = choose_device(options.device)
    terminal.remark(f"device: {device}")
    terminal.remark(
        f"nets: {' and '.join(map(str, plans))}; four-fold cross-validation: each net predicts images it was not "
        "trained on"
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        groups: Sequence[Any]
        if len(train) > NEAR_DUPLICATES_IMAGES:
            groups = digest_rows(train.pixels)
        else:
            pairs = find_near_duplicates(train.pixels, partial(show_progress, "comparing images"))
            groups = group_copies(train.pixels, pairs)
        groups, divided = limit_groups(train, groups)
        if divided:
            terminal.remark(
                f"warning: {divided:,} training images are near-duplicates of each other, too many to be in one fold. "
                "lamina keeps only identical images in one fold, and divides even these if there are too many. A net "
                "may have been trained on a copy of an image whose label it checks."
            )
        findings = check_labels(
            dataset,
            lambda images, others: predict_by(
                plans, images, others, groups=groups, device=device.value,
                progress=partial(show_progress, "checking labels"),
            ),
        )  # fmt: skip
    for split, label_issues in findings.label_issues.items():
        terminal.say(count_label_issues(dataset.splits[split], label_issues, findings.disagreements[split]))
        warn_if_weak("the nets agree", split, findings.agreements[split], terminal)
    terminal.say(
        f"test with injected errors: {findings.injected_found:,} of {findings.injected:,} randomly exchanged labels "
        f"found ({100 * findings.injected_recall:.0f} %)"
    )
    report_label_issues(
        dataset, findings.label_issues, findings.agreements, findings.injected_recall, options, terminal
    )


def _write_table(file: Path, found: Sequence[tuple[Sight, LabelIssue]], who: str) -> None:
    rows = [
        (sight.name, sight.images.split, one.given, one.likely, f"{one.score:.4f}", one.explain(who), "")
        for sight, one in found
    ]
    with writing(file):
        write_atomically(file, format_rows([COLUMNS, *rows]))


def count_label_issues(images: Images, label_issues: Sequence[LabelIssue], disagreements: int) -> str:
    total = images.targets.size
    return (
        f"{images.split}: {len(label_issues):,} of {plural(total, 'label is', 'labels are')} likely incorrect "
        f"({100 * len(label_issues) / total:.1f} %); for {disagreements:,}, another label is more probable"
    )


def warn_if_weak(who: str, split: Split, agreement: Agreement, terminal: Terminal) -> None:
    """Warn that many listed labels are likely correct, if the nets agree with few labels."""
    if agreement.is_weak:
        terminal.remark(
            f"warning: {who} with only {format_percent(agreement.value)} of the {split} labels, averaged over classes "
            f"(by chance: {format_percent(agreement.guessed)}). A weak model flags correct labels, so most of "
            "the listed labels are likely correct. Train a better net, or add images."
        )


def report_label_issues(
    dataset: Dataset,
    label_issues: Mapping[Split, Sequence[LabelIssue]],
    agreements: Mapping[Split, Agreement],
    injected_recall: float | None,
    options: DataOptions,
    terminal: Terminal,
) -> None:
    ordered = sorted(
        ((dataset.splits[split], label_issue) for split, found in label_issues.items() for label_issue in found),
        key=lambda pair: -pair[1].score,
    )
    found = [(Sight(images, one.row), one) for images, one in ordered]
    rows = [(sight.name, sight.images.split, one.given, one.likely, f"{one.score:.3f}") for sight, one in found]
    terminal.tabulate(("image", "split", "given", "likely", "score"), rows, texts=4, top=options.top)
    for file in options.output:
        if file.suffix.lower() == ".csv":
            _write_table(file, found, "nets trained on other images" if options.labels else "the model")
            terminal.remark(
                f"label issues: {file}. {HOW_TO_CORRECT.format(file=file) if ordered else 'There are none.'}"
            )
            continue
        from lamina.drawing.contact_sheet import build_label_issues_sheet

        title = f"{dataset.name}: {plural(len(ordered), 'label that is', 'labels that are')} likely incorrect"
        save_sheet(build_label_issues_sheet(ordered, title), file)
        terminal.remark(f"images with label issues: {file}")
    if ordered and not options.output:
        terminal.remark("To draw these images, use --output FILE.png; to correct their labels, --output FILE.csv.")
    if ordered:
        terminal.remark(
            "Look at each image before you correct its label: some are correct. Do not remove test images, because "
            "only easy ones would remain."
        )
    terminal.emit(
        "labels",
        label_issues=[
            sight.to_json() | {"given": one.given, "likely": one.likely, "score": one.score} for sight, one in found
        ],
        agreement={split: agreement.value for split, agreement in agreements.items()},
        injected_recall=injected_recall,
    )
