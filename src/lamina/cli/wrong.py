"""lamina data --labels, --with and --duplicates: likely wrong labels, hard pictures and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.cli.choices import choose_data, choose_evaluated_data, open_predictor
from lamina.cli.data import Options, check_png, save_sheet
from lamina.cli.hard import Judged, Sight, outliers_to_json, say_hard, say_outliers, tabulate_outliers
from lamina.cli.session import end_on_sigterm
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.preparation import Preparation
from lamina.errors import DataError, escape, plural
from lamina.text import format_percent

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.data import Dataset, Images
    from lamina.data.images import Split
    from lamina.insight.labels import Agreement, Suspect
    from lamina.training.task import Task

NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many pictures, near-duplicates are found first and are in one fold; among more, identical pictures are."""


def look(options: Options, terminal: Terminal) -> int:
    """Look for what the options ask for."""
    _check(options)
    with end_on_sigterm():
        if options.run is not None:
            dataset = _judge_by_run(options.run, options, terminal)
        else:
            dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
            if options.labels:
                _judge_by_folds(dataset, options, terminal)
        if options.duplicates:
            _look_for_duplicates(dataset, options, terminal)
    return 0


def _check(options: Options) -> None:
    if options.labels and options.run is not None:
        raise DataError("--labels trains nets of its own, and --with uses a run's model. Give one of the two.")
    if options.net is not None and options.run is None:
        raise DataError("--net is for a run's own module. Give --with RUN too.")
    if options.suspects is not None and not options.labels and options.run is None:
        raise DataError("--suspects draws likely wrong labels. Give --labels or --with RUN too.")
    if options.hard is not None and options.run is None:
        raise DataError("--hard draws what a run's model finds hard. Give --with RUN too.")
    if options.top < 1:
        raise DataError(f"--top was {options.top}, but must be at least 1.")
    check_png("--suspects", options.suspects)
    check_png("--hard", options.hard)


def _judge_by_folds(dataset: Dataset, options: Options, terminal: Terminal) -> None:
    from lamina.data.duplicates import digest_rows
    from lamina.data.load import check_learnable
    from lamina.insight.duplicates import group_copies
    from lamina.insight.folds import check_dealable, choose_plans, limit_groups, predict_by
    from lamina.insight.labels import find_wrong_labels
    from lamina.training.device import choose_device
    from lamina.training.pretrained import find_at_hand

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
            groups = group_copies(train.pixels, lambda done, total: show_progress("comparing pictures", done, total))
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
                plans,
                images,
                others,
                groups=groups,
                device=device.value,
                progress=lambda done, total: show_progress("judging labels", done, total),
            ),
        )
    for split, suspects in findings.suspects.items():
        terminal.say(_count(dataset.splits[split], suspects, findings.disagreements[split]))
        _warn_if_weak("the nets agree", split, findings.agreements[split], terminal)
    terminal.say(
        f"of {findings.planted:,} labels that were exchanged between pictures at random for a test, "
        f"{findings.planted_found} {'was' if findings.planted_found == 1 else 'were'} found "
        f"({100 * findings.planted_recall:.0f} %)"
    )
    _report(dataset, findings.suspects, findings.agreements, findings.planted_recall, options, terminal)


def _judge_by_run(path: Path, options: Options, terminal: Terminal) -> Dataset:
    from lamina.runs.run import load_run
    from lamina.training.features import predict_with_features

    run = load_run(path)
    predictor = open_predictor(run, options.net, options.device, terminal)
    task = predictor.task
    dataset, is_own = choose_evaluated_data(run, options.data, predictor, terminal)
    with terminal.progress(QUIET_SECONDS) as show_progress:

        def judge(images: Images) -> Judged:
            what = f"looking at {images.split}"
            return Judged(
                images,
                *predict_with_features(
                    predictor.model, images.pixels, lambda done, total: show_progress(what, done, total)
                ),
            )

        judged = [judge(images) for images in dataset.splits.values()]
    if task.kind.has_classes:
        _find_suspects(dataset, judged, task, is_own, options, terminal)
    held_out = [one for one in judged if one.images.split != "train"] if is_own else judged
    if not held_out:
        terminal.remark("there is neither val nor test, so these are the pictures that the model was trained on")
    say_hard(task, held_out or judged, escape(f"{dataset.name}: what {path} finds hard"), options, terminal)
    say_outliers(judged, options, terminal)
    return dataset


def _find_suspects(
    dataset: Dataset, judged: Sequence[Judged], task: Task, is_own: bool, options: Options, terminal: Terminal
) -> None:
    import torch

    from lamina.insight.labels import count_disagreements, find_suspects, measure_agreement

    suspects: dict[Split, tuple[Suspect, ...]] = {}
    agreements: dict[Split, Agreement] = {}
    for images, logits, _ in judged:
        probabilities = task.probabilities(torch.from_numpy(logits)).numpy()
        suspects[images.split] = find_suspects(images, probabilities)
        agreements[images.split] = measure_agreement(images, probabilities)
        terminal.say(_count(images, suspects[images.split], count_disagreements(images, probabilities)))
        _warn_if_weak("the model agrees", images.split, agreements[images.split], terminal)
        if is_own and images.split == "train":
            terminal.say("    the model was trained on these, so it has learned many wrong labels too: try --labels")
    _report(dataset, suspects, agreements, None, options, terminal)


def _count(images: Images, suspects: Sequence[Suspect], disagreements: int) -> str:
    """How many labels are likely wrong, and for how many the nets merely find another more probable."""
    total = images.targets.size
    return (
        f"{images.split}: {len(suspects):,} of {plural(total, 'label is', 'labels are')} likely wrong "
        f"({100 * len(suspects) / total:.1f} %); another is more probable for {disagreements:,}"
    )


def _warn_if_weak(who: str, split: Split, agreement: Agreement, terminal: Terminal) -> None:
    if agreement.is_weak:
        terminal.remark(
            f"warning: {who} with only {format_percent(agreement.value)} of the labels of {split}, averaged over the "
            f"classes (guessing: {format_percent(agreement.guessed)}). Most of the labels listed are likely right, "
            "unless very many are wrong: this needs a better net, or more pictures."
        )


def _report(
    dataset: Dataset,
    suspects: Mapping[Split, Sequence[Suspect]],
    agreements: Mapping[Split, Agreement],
    planted_recall: float | None,
    options: Options,
    terminal: Terminal,
) -> None:
    ordered = sorted(
        ((dataset.splits[split], suspect) for split, found in suspects.items() for suspect in found),
        key=lambda pair: -pair[1].score,
    )
    shown = ordered[: options.top]
    terminal.tabulate(
        ("image", "split", "given", "suggested", "score"),
        [(images.names[one.row], images.split, one.given, one.suggested, f"{one.score:.3f}") for images, one in shown],
        texts=4,
    )
    if len(ordered) > len(shown):
        terminal.say(f"and {len(ordered) - len(shown):,} more (--top N, --json)")
    if options.suspects is not None:
        from lamina.drawing import build_suspects_sheet

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
            {
                "picture": images.names[one.row],
                "split": images.split,
                "given": one.given,
                "suggested": one.suggested,
                "score": one.score,
            }
            for images, one in ordered
        ],
        agreement={split: agreement.value for split, agreement in agreements.items()},
        planted_recall=planted_recall,
    )


def _look_for_duplicates(dataset: Dataset, options: Options, terminal: Terminal) -> None:
    from lamina.insight.duplicates import compute_signatures, find_near_duplicates, measure_isolation, shrink

    # Shrunk split by split, as all pictures together may not fit into memory.
    pixels = np.concatenate([shrink(images.pixels) for images in dataset.splits.values()])
    sights = [Sight(images, row) for images in dataset.splits.values() for row in range(len(images))]
    with terminal.progress(QUIET_SECONDS) as show_progress:
        pairs = find_near_duplicates(pixels, lambda done, total: show_progress("comparing pictures", done, total))
        isolation = measure_isolation(compute_signatures(pixels))
    outliers = np.argsort(-isolation, kind="stable")[: options.top].tolist()
    across = sum(sights[pair.first].images is not sights[pair.second].images for pair in pairs)
    terminal.say(f"{plural(len(pairs), 'pair', 'pairs')} of near-duplicates, {across:,} of them in two splits")
    rows = []
    for pair in pairs[: options.top]:
        first, second = ((each.name, each.images.split) for each in (sights[pair.first], sights[pair.second]))
        rows.append((*first, *second, "yes" if pair.mirrored else "no", f"{pair.distance:.3f}"))
    terminal.tabulate(("image", "split", "near-duplicate", "split", "mirrored", "distance"), rows, texts=5)
    if len(pairs) > len(rows):
        terminal.say(f"and {len(pairs) - len(rows):,} more (--top N, --json)")
    terminal.say("least like any other picture:")
    tabulate_outliers(sights, isolation, outliers, terminal)
    terminal.emit(
        "duplicates",
        pairs=[
            {
                "first": sights[pair.first].name,
                "second": sights[pair.second].name,
                "distance": pair.distance,
                "splits": [sights[pair.first].images.split, sights[pair.second].images.split],
            }
            for pair in pairs
        ],
        outliers=outliers_to_json(sights, isolation, outliers),
    )
