"""lamina data --labels: likely wrong labels, found by nets that are trained for it on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lamina.cli.duplicates import Sight
from lamina.cli.options.data import DataOptions
from lamina.cli.output import save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.data.duplicates import digest_rows
from lamina.data.load import check_learnable
from lamina.data.splits import Split
from lamina.errors import plural
from lamina.insight.duplicates import group_copies
from lamina.insight.folds import check_dealable, choose_plans, limit_groups, predict_by
from lamina.insight.labels import Agreement, Suspect, find_wrong_labels
from lamina.text import format_percent
from lamina.training.device import choose_device
from lamina.training.pretrained import find_at_hand

NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many pictures, near-duplicates are found first and are in one fold; among more, identical pictures are."""


def judge_by_folds(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Say which labels nets that were trained on other images find wrong."""
    train = dataset.train
    check_dealable(train)
    check_learnable(dataset)
    plans = choose_plans(train, None if options.from_ == "scratch" else find_at_hand())
    device = choose_device(options.device)
    terminal.remark(f"device: {device}")
    terminal.remark(
        f"nets: {' and '.join(map(str, plans))}; four of each, each trained without a different quarter of the pictures"
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        groups: Sequence[Any]
        if len(train) > NEAR_DUPLICATES_IMAGES:
            groups = digest_rows(train.pixels)
        else:
            groups = group_copies(train.pixels, partial(show_progress, "comparing pictures"))
        groups, divided = limit_groups(train, groups)
        if divided:
            terminal.remark(
                f"{divided:,} training pictures are copies of each other, or nearly, and too many of their class or of "
                "all to be in one fold. Only identical ones are kept together, or none where these are too many, "
                "so a net may have been told the label of a picture's copy."
            )
        findings = find_wrong_labels(
            dataset,
            lambda images, others: predict_by(
                plans, images, others, groups=groups, device=device.value,
                progress=partial(show_progress, "judging labels"),
            ),
        )  # fmt: skip
    for split, suspects in findings.suspects.items():
        terminal.say(count_suspects(dataset.splits[split], suspects, findings.disagreements[split]))
        warn_if_weak("the nets agree", split, findings.agreements[split], terminal)
    terminal.say(
        f"of {findings.planted:,} labels that were exchanged between pictures at random for a test, "
        f"{findings.planted_found} {'was' if findings.planted_found == 1 else 'were'} found "
        f"({100 * findings.planted_recall:.0f} %)"
    )
    report_suspects(dataset, findings.suspects, findings.agreements, findings.planted_recall, options, terminal)


def count_suspects(images: Images, suspects: Sequence[Suspect], disagreements: int) -> str:
    """How many labels are likely wrong, and for how many the nets merely find another more probable."""
    total = images.targets.size
    return (
        f"{images.split}: {len(suspects):,} of {plural(total, 'label is', 'labels are')} likely wrong "
        f"({100 * len(suspects) / total:.1f} %); another is more probable for {disagreements:,}"
    )


def warn_if_weak(who: str, split: Split, agreement: Agreement, terminal: Terminal) -> None:
    """Warn that many labels listed are right, where the nets hardly agree with any."""
    if agreement.is_weak:
        terminal.remark(
            f"warning: {who} with only {format_percent(agreement.value)} of the labels of {split}, averaged over the "
            f"classes (guessing: {format_percent(agreement.guessed)}). Most of the labels listed are likely right, "
            "unless very many are wrong: this needs a better net, or more pictures."
        )


def report_suspects(
    dataset: Dataset,
    suspects: Mapping[Split, Sequence[Suspect]],
    agreements: Mapping[Split, Agreement],
    planted_recall: float | None,
    options: DataOptions,
    terminal: Terminal,
) -> None:
    """Print the labels that are likely wrong, and draw them if that was asked for."""
    ordered = sorted(
        ((dataset.splits[split], suspect) for split, found in suspects.items() for suspect in found),
        key=lambda pair: -pair[1].score,
    )
    found = [(Sight(images, one.row), one) for images, one in ordered]
    rows = [(sight.name, sight.images.split, one.given, one.suggested, f"{one.score:.3f}") for sight, one in found]
    terminal.tabulate(("image", "split", "given", "suggested", "score"), rows, texts=4, top=options.top)
    if options.suspects is not None:
        from lamina.drawing.contact_sheet import build_suspects_sheet

        title = f"{dataset.name}: {plural(len(ordered), 'label that is', 'labels that are')} likely wrong"
        save_sheet(build_suspects_sheet(ordered, title), options.suspects)
        terminal.remark(f"suspects: {options.suspects}")
    elif ordered:
        terminal.remark("--suspects FILE.png draws them.")
    if ordered:
        terminal.remark(
            "Look before you correct a label: some are right. Leave no test picture out: the easy ones would remain."
        )
    terminal.emit(
        "labels",
        suspects=[
            sight.to_json() | {"given": one.given, "suggested": one.suggested, "score": one.score}
            for sight, one in found
        ],
        agreement={split: agreement.value for split, agreement in agreements.items()},
        planted_recall=planted_recall,
    )
