"""lamina data --with: what a run's model finds hard, and the pictures that are least like any other to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lamina.cli.data import Options, save_sheet
from lamina.cli.terminal import Terminal
from lamina.errors import name_some, plural
from lamina.targets import SINGLE_LABEL
from lamina.text import format_percent

if TYPE_CHECKING:
    from jaxtyping import Float32
    from torch import Tensor

    from lamina.data import Images
    from lamina.insight.hard import Confusion
    from lamina.training.task import Task

DRAWN_LOSSES = 16
NAMED_PICTURES = 3
"""Names that stand beside a pair of classes; --json has all."""


class Judged(NamedTuple):
    """The images of a split, and what a model makes of them."""

    images: Images
    logits: Float32[np.ndarray, "n k"]
    features: Tensor


class Sight(NamedTuple):
    """A picture, by its row in its split."""

    images: Images
    row: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.images.names[self.row]


def say_hard(task: Task, judged: Sequence[Judged], title: str, options: Options, terminal: Terminal) -> None:
    """Say which classes, pairs and pictures a model finds hard, of splits that it was not trained on."""
    from lamina.insight.hard import find_confusions, format_answers, measure_losses

    sights = [Sight(one.images, row) for one in judged for row in range(len(one.images))]
    logits = np.concatenate([one.logits for one in judged])
    targets = np.concatenate([one.images.targets for one in judged])
    losses = measure_losses(task, logits, targets)
    classes, pairs = find_confusions(task, logits, targets)
    order = np.argsort(-losses, kind="stable")[: max(options.top, DRAWN_LOSSES)]
    answers = format_answers(task, logits[order])
    worst = [
        (sights[row], task.kind.format(targets[row], task.target_names), answer, float(losses[row]))
        for row, answer in zip(order.tolist(), answers, strict=True)
    ]
    shown = worst[: options.top]
    splits = " and ".join(one.images.split for one in judged)
    terminal.say("", f"what the model finds hard, among {plural(len(sights), 'image', 'images')} of {splits}:")
    if pairs and task.kind is SINGLE_LABEL and task.outputs > 2:  # of two, the pairs say the same
        _tabulate_classes(classes, options, terminal)
        terminal.say("")
    if pairs:
        _tabulate_pairs(pairs, sights, options, terminal)
    elif task.kind.has_classes:
        terminal.say("nothing is answered wrongly")
    terminal.say("", "largest losses:")
    terminal.tabulate(
        ("image", "split", "true", "answered", "loss"),
        [(sight.name, sight.images.split, truth, answer, f"{loss:.3g}") for sight, truth, answer, loss in shown],
        texts=4,
    )
    if options.hard is not None:
        from lamina.drawing import build_hard_sheet

        drawn = [(*sight, truth, answer) for sight, truth, answer, _ in worst[:DRAWN_LOSSES]]
        save_sheet(
            build_hard_sheet(drawn, [(pair, [sights[row] for row in pair.rows]) for pair in pairs], title), options.hard
        )
        terminal.remark(f"hard pictures: {options.hard}")
    else:
        terminal.remark("--hard FILE.png draws them.")
    terminal.emit(
        "hard",
        splits=[one.images.split for one in judged],
        classes=[_to_json(one, sights) for one in classes],
        pairs=[_to_json(one, sights) for one in pairs],
        losses=[
            {
                "picture": sight.name,
                "split": sight.images.split,
                "true": truth,
                "answered": answer,
                "loss": round(loss, 4),
            }
            for sight, truth, answer, loss in shown
        ],
    )


def say_outliers(judged: Sequence[Judged], options: Options, terminal: Terminal) -> None:
    """Say which pictures are furthest from their neighbours, in the features of a model."""
    import torch

    from lamina.insight.duplicates import measure_isolation

    sights = [Sight(one.images, row) for one in judged for row in range(len(one.images))]
    isolation = measure_isolation(torch.cat([one.features for one in judged]))
    outliers = np.argsort(-isolation, kind="stable")[: options.top].tolist()
    terminal.say("", "least like any other picture, to the model:")
    tabulate_outliers(sights, isolation, outliers, terminal)
    terminal.emit("outliers", outliers=outliers_to_json(sights, isolation, outliers))


def tabulate_outliers(
    sights: Sequence[Sight], isolation: Float32[np.ndarray, " n"], outliers: Sequence[int], terminal: Terminal
) -> None:
    """Print how isolated the outliers are."""
    rows = [(sights[row].name, sights[row].images.split, f"{isolation[row]:.3f}") for row in outliers]
    terminal.tabulate(("image", "split", "isolation"), rows, texts=2)


def outliers_to_json(
    sights: Sequence[Sight], isolation: Float32[np.ndarray, " n"], outliers: Sequence[int]
) -> list[dict[str, object]]:
    """The same as JSON values."""
    return [
        {
            "picture": sights[row].name,
            "split": sights[row].images.split,
            "isolation": round(float(isolation[row]), 4),
        }
        for row in outliers
    ]


def _tabulate_classes(classes: Sequence[Confusion], options: Options, terminal: Terminal) -> None:
    terminal.tabulate(
        ("true", "wrong", "of", "share", "95 % interval"),
        [(one.target, *_figures(one)) for one in classes[: options.top]],
    )
    _say_rest(classes, options, terminal)


def _tabulate_pairs(pairs: Sequence[Confusion], sights: Sequence[Sight], options: Options, terminal: Terminal) -> None:
    terminal.tabulate(
        ("true", "answered", "largest losses", "images", "of", "share", "95 % interval"),
        [
            (
                one.target,
                str(one.answer),
                name_some([sights[row].name for row in one.rows], NAMED_PICTURES),
                *_figures(one),
            )
            for one in pairs[: options.top]
        ],
        texts=3,
    )
    _say_rest(pairs, options, terminal)


def _figures(one: Confusion) -> tuple[str, str, str, str]:
    low, high = 100 * one.interval.low, 100 * one.interval.high
    share = format_percent(len(one.rows) / one.images)
    return f"{len(one.rows):,}", f"{one.images:,}", share, f"{low:.1f} to {high:.1f} %"


def _say_rest(found: Sequence[Confusion], options: Options, terminal: Terminal) -> None:
    if len(found) > options.top:
        terminal.say(f"and {len(found) - options.top:,} more (--top N, --json)")


def _to_json(one: Confusion, sights: Sequence[Sight]) -> dict[str, object]:
    answer = {} if one.answer is None else {"answered": one.answer}
    return {
        "true": one.target,
        **answer,
        "images": len(one.rows),
        "of": one.images,
        "interval": [round(one.interval.low, 4), round(one.interval.high, 4)],
        "pictures": [{"picture": sights[row].name, "split": sights[row].images.split} for row in one.rows],
    }
