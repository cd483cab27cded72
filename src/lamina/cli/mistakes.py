"""lamina data --with: find label issues, hard classes and images, and outliers with a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from lamina.cli.label_issues import report_label_issues
from lamina.cli.models import choose_evaluated_data, load_predictor
from lamina.cli.near_duplicates import Sight, list_sights, show_outliers
from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.data.matching import ClassMatch
from lamina.errors import escape, name_some, plural
from lamina.insight.confident_learning import judge_labels
from lamina.insight.confusions import Confusion, find_confusions, format_predictions, measure_losses
from lamina.insight.similarity import measure_isolation
from lamina.targets import SINGLE_LABEL
from lamina.text import format_percent
from lamina.training.prediction import predict_with_features
from lamina.training.task import Task

DRAWN_LOSSES = 16
NAMED_IMAGES = 3  # per pair of classes in the table; --json lists all


class Judged(NamedTuple):
    """The images of a split, with a model's logits and features."""

    images: Images
    logits: Float32[np.ndarray, "n k"]
    features: torch.Tensor


def judge_by_run(path: Path, options: DataOptions, terminal: Terminal) -> Dataset:
    """Report label issues, hard classes and images, and outliers."""
    run, predictor = load_predictor(path, options.net, options.device, terminal)
    task = predictor.task
    dataset, is_own = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, ClassMatch()
    )
    with terminal.progress(QUIET_SECONDS) as show_progress:

        def judge(images: Images) -> Judged:
            progress = partial(show_progress, f"predicting {images.split}")
            return Judged(images, *predict_with_features(predictor.model, images.pixels, progress))

        judged = [judge(images) for images in dataset.splits.values()]
    if task.kind.has_classes:
        findings = {}
        for images, logits, _ in judged:
            probabilities = task.probabilities(torch.from_numpy(logits)).numpy()
            findings[images.split] = judge_labels(images, probabilities)
        report_label_issues(dataset, findings, options, terminal)
        if is_own:
            terminal.say(
                "train: the model was trained on these images and may have memorized incorrect"
                " labels; --labels avoids this"
            )
    held_out = judged
    if is_own:
        held_out = [split for split in judged if split.images.split != "train"]
    if not held_out:
        terminal.remark(
            "warning: the data set has no val or test split; hard images come from train, which the"
            " model was trained on"
        )
    _report_hard(
        task, held_out or judged, escape(f"{dataset.name}: hard for {path}"), options, terminal
    )
    isolation = measure_isolation(torch.cat([split.features for split in judged]))
    terminal.say("", "outliers (images whose features are unlike all others):")
    sights = list_sights(split.images for split in judged)
    terminal.emit("outliers", outliers=show_outliers(sights, isolation, options.top, terminal))
    return dataset


def _report_hard(
    task: Task, judged: Sequence[Judged], title: str, options: DataOptions, terminal: Terminal
) -> None:
    sights = list_sights(split.images for split in judged)
    logits = np.concatenate([split.logits for split in judged])
    targets = np.concatenate([split.images.targets for split in judged])
    losses = measure_losses(task, logits, targets)
    classes, pairs = find_confusions(task, logits, targets)
    order = np.argsort(-losses, kind="stable")[: max(options.top, DRAWN_LOSSES)]
    predictions = format_predictions(task, logits[order])
    worst = []
    for row, predicted in zip(order.tolist(), predictions, strict=True):
        truth = task.kind.format(targets[row], task.target_names)
        worst.append((sights[row], truth, predicted, float(losses[row])))
    splits = [split.images.split for split in judged]
    images = plural(len(sights), "image", "images")
    terminal.say("", f"hard classes and images, among {images} in {' and '.join(splits)}:")
    _tabulate_confusions(task, classes, pairs, sights, options.top, terminal)
    terminal.say("", "largest losses:")
    rows = [
        (sight.name, sight.images.split, truth, predicted, f"{loss:.3g}")
        for sight, truth, predicted, loss in worst
    ]
    terminal.tabulate(("image", "split", "true", "predicted", "loss"), rows[: options.top], texts=4)
    if options.hard is not None:
        from lamina.drawing.contact_sheet import build_hard_sheet

        drawn = [(*sight, truth, predicted) for sight, truth, predicted, _ in worst[:DRAWN_LOSSES]]
        confused = [(pair, [sights[row] for row in pair.rows]) for pair in pairs]
        save_sheet(build_hard_sheet(drawn, confused, title), options.hard)
        terminal.remark(f"hard images: {options.hard}")
    else:
        terminal.remark("To draw these images, use --hard FILE.png.")
    terminal.emit(
        "hard",
        splits=splits,
        classes=[_to_json(confusion, sights) for confusion in classes],
        pairs=[_to_json(pair, sights) for pair in pairs],
        losses=[
            sight.to_json() | {"true": truth, "predicted": predicted, "loss": round(loss, 4)}
            for sight, truth, predicted, loss in worst[: options.top]
        ],
    )


def _tabulate_confusions(
    task: Task,
    classes: Sequence[Confusion],
    pairs: Sequence[Confusion],
    sights: Sequence[Sight],
    top: int,
    terminal: Terminal,
) -> None:
    if not pairs:
        if task.kind.has_classes:
            terminal.say("all predictions are correct")
        return
    heads = ("of", "share", "95 % interval")
    # with two classes, the pairs contain the same values
    if task.kind is SINGLE_LABEL and task.outputs > 2:
        terminal.tabulate(
            ("true", "incorrect", *heads),
            [(confusion.target, *_format_counts(confusion)) for confusion in classes],
            top=top,
        )
        terminal.say("")
    rows = []
    for pair in pairs:
        names = name_some([sights[row].name for row in pair.rows], NAMED_IMAGES)
        rows.append((pair.target, str(pair.predicted), names, *_format_counts(pair)))
    terminal.tabulate(
        ("true", "predicted", "largest losses", "images", *heads), rows, texts=3, top=top
    )


def _format_counts(confusion: Confusion) -> tuple[str, str, str, str]:
    low = 100 * confusion.interval.low
    high = 100 * confusion.interval.high
    count = len(confusion.rows)
    share = format_percent(count / confusion.images)
    return f"{count:,}", f"{confusion.images:,}", share, f"{low:.1f} to {high:.1f} %"


def _to_json(confusion: Confusion, sights: Sequence[Sight]) -> dict[str, object]:
    values: dict[str, object] = {"true": confusion.target}
    if confusion.predicted is not None:
        values["predicted"] = confusion.predicted
    return {
        **values,
        "images": len(confusion.rows),
        "of": confusion.images,
        "interval": [round(confusion.interval.low, 4), round(confusion.interval.high, 4)],
        "examples": [sights[row].to_json() for row in confusion.rows],
    }
