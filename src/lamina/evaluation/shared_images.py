"""Runs that were evaluated on different images: what they predict for the images that they share.

Images are the same if their pixels are. Runs whose images were resized in different ways share the
images that have the same name in the same data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from lamina.errors import DataError, LaminaError, name_some, plural
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import measure_outputs
from lamina.targets import MULTI_LABEL, SINGLE_LABEL, Score
from lamina.training.task import Task

LEAST_SHARED = 10
NAMED_CLASSES = 9


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A run's predictions for the images that it was evaluated on.

    Attributes:
        name: of the run, in messages.
        task: of the model.
        outputs: the stored logits.
        source: where the images come from; empty for arrays.
        resizing: how they were resized, and their shape.
        created: when the run began, in ISO 8601; the newest run has the targets that count.
    """

    name: str
    task: Task
    outputs: Outputs
    source: str
    resizing: tuple[Any, ...]
    created: str


@dataclass(frozen=True)
class Sharing:
    """Which images two runs that were evaluated on different images are compared on.

    Attributes:
        corrected: number of shared images whose targets differ between the runs.
        a_alone: number of other images that A was evaluated on.
        b_alone: the same of B.
        a_score: score of A on these images; ``None`` if it is undefined.
        b_score: score of B on its other images.
        classes: the classes or labels that are compared, if the runs know different ones.
    """

    corrected: int
    a_alone: int
    b_alone: int
    a_score: float | None
    b_score: float | None
    classes: tuple[str, ...] = ()

    def lines(self, metric: str) -> list[str]:
        """The same as sentences."""
        text = "compared on the images that both were tested on and neither was trained on"
        if self.corrected:
            text += f"; {plural(self.corrected, 'label was', 'labels were')} corrected in the newer"
            text += " data, and the newer labels count"
        lines = [text]
        if self.classes:
            lines.append(f"only the classes that both know: {name_some(self.classes)}")
        for letter, images, value in (
            ("A", self.a_alone, self.a_score),
            ("B", self.b_alone, self.b_score),
        ):
            if images:
                score = "" if value is None else f": {Score(metric, value)}"
                lines.append(
                    f"only {letter} has {plural(images, 'other image', 'other images')}{score}"
                )
        return lines


def are_alike(runs: Sequence[Evaluated]) -> bool:
    """Whether all runs were evaluated on the same images, targets and groups."""
    first = runs[0].outputs
    names = runs[0].task.target_names
    return all(
        (run.outputs.names, run.outputs.groups) == (first.names, first.groups)
        and np.array_equal(run.outputs.targets, first.targets)
        and run.task.target_names == names
        for run in runs
    )


def share_images(runs: Sequence[Evaluated]) -> list[Evaluated]:
    """The predictions of all runs for the images that they share, each with its own targets.

    Raises:
        DataError: They share fewer than 10 images, or fewer than two classes.
    """
    newest = find_newest(runs)
    keys = list_keys(runs)
    places = [{key: row for row, key in enumerate(listed)} for listed in keys]
    shared = [key for key in keys[runs.index(newest)] if all(key in known for known in places)]
    rows = [np.array([known[key] for key in shared], np.int64) for known in places]
    names = _share_classes(runs, newest)
    parts = [_select(run, place, names) for run, place in zip(runs, rows, strict=True)]
    targets = parts[runs.index(newest)].outputs.targets
    are_left = np.ones(len(shared), np.bool_)
    if newest.task.kind is SINGLE_LABEL:
        are_left &= targets >= 0
    for part in parts:
        if part.outputs.seen is not None:
            are_left &= ~part.outputs.seen
    left = np.flatnonzero(are_left)
    if len(left) < LEAST_SHARED:
        counts = [f"{run.name} on {len(run.outputs.names):,}" for run in runs]
        raise DataError(
            f"Of the images that the runs were tested on ({', '.join(counts)}),"
            f" {plural(len(left), 'is', 'are')} in all of them and in no training set. Compare runs"
            f" that share at least {LEAST_SHARED} images."
        )
    return [_select(part, left, names) for part in parts]


def use_newest_targets(shared: Sequence[Evaluated]) -> list[Evaluated]:
    """The predictions with the targets and groups of the newest run."""
    newest = find_newest(shared).outputs
    return [
        replace(run, outputs=replace(run.outputs, targets=newest.targets, groups=newest.groups))
        for run in shared
    ]


def find_newest(runs: Sequence[Evaluated]) -> Evaluated:
    """The run that began last."""
    return max(runs, key=lambda run: run.created)


def describe_sharing(pair: Sequence[Evaluated], shared: Sequence[Evaluated]) -> Sharing:
    """How two runs share the images of their comparison, ``shared``."""
    first, second = (part.outputs.targets for part in shared)
    differ = (first != second).reshape(len(first), -1).any(axis=1)
    keys, other_keys = list_keys(pair)
    alone = [_find_alone(pair[0], keys, other_keys), _find_alone(pair[1], other_keys, keys)]
    classes = shared[0].task.target_names
    has_same = all(set(run.task.target_names) == set(classes) for run in pair)
    return Sharing(
        corrected=int(differ.sum()),
        a_alone=len(alone[0].outputs.names),
        b_alone=len(alone[1].outputs.names),
        a_score=_score(alone[0]),
        b_score=_score(alone[1]),
        classes=() if has_same else classes,
    )


def _find_alone(
    run: Evaluated, keys: Sequence[Hashable], other_keys: Sequence[Hashable]
) -> Evaluated:
    """The predictions for the images that only this run was evaluated on."""
    known = set(other_keys)
    rows = [row for row, key in enumerate(keys) if key not in known]
    return _select(run, np.array(rows, np.int64), run.task.target_names)


def list_keys(runs: Sequence[Evaluated]) -> list[list[Hashable]]:
    """What identifies each image; copies are numbered."""
    first = runs[0]
    is_same_source = bool(first.source) and all(run.source == first.source for run in runs)
    are_resized_alike = all(run.resizing == first.resizing for run in runs)
    listed = []
    for run in runs:
        digests = run.outputs.digests
        values: Sequence[Hashable] = run.outputs.names
        if digests is not None and (are_resized_alike or not is_same_source):
            values = [digest.tobytes() for digest in digests]
        counts: Counter[Hashable] = Counter()
        keys: list[Hashable] = []
        for value in values:
            keys.append((value, counts[value]))
            counts[value] += 1
        listed.append(keys)
    return listed


def _share_classes(runs: Sequence[Evaluated], newest: Evaluated) -> tuple[str, ...]:
    """The classes, labels or numbers that all runs know, in the order of the newest run."""
    known = [run.task.target_names for run in runs]
    names = tuple(
        name for name in newest.task.target_names if all(name in other for other in known)
    )
    kind = newest.task.kind
    is_part = kind in (SINGLE_LABEL, MULTI_LABEL)
    least = 2 if kind is SINGLE_LABEL else 1
    if len(names) < least or (not is_part and any(other != names for other in known)):
        listed = [
            f"{run.name} has {name_some(run.task.target_names, NAMED_CLASSES)}" for run in runs
        ]
        raise DataError(
            f"The runs predict different {kind} targets: {'; '.join(listed)}. Compare runs that"
            f" have at least {plural(least, 'target name', 'target names')} in common."
        )
    return names


def _select(run: Evaluated, rows: Int64[np.ndarray, " m"], names: tuple[str, ...]) -> Evaluated:
    """The predictions for some images, and for some classes; other classes have the target -1."""
    task = run.task
    outputs = run.outputs.take(rows)
    if names == task.target_names:
        return replace(run, outputs=outputs)
    places = [task.target_names.index(name) for name in names]
    targets = outputs.targets
    if task.kind is SINGLE_LABEL:
        numbers = np.full(task.outputs, -1)
        numbers[places] = np.arange(len(places))
        targets = numbers[targets]
    else:
        targets = targets[:, places]
    selected = replace(outputs, logits=outputs.logits[:, places], targets=targets)
    return replace(run, task=_select_names(task, places), outputs=selected)


def _select_names(task: Task, places: Sequence[int]) -> Task:
    """The task of some of the classes or labels."""
    names = ["target_names", "shares"]
    if task.kind is MULTI_LABEL:
        names += ["temperatures", "thresholds"]
    values: dict[str, Any] = {}
    for name in names:
        old = getattr(task, name)
        values[name] = tuple(old[place] for place in places) if old else ()
    return replace(task, **values)


def _score(run: Evaluated) -> float | None:
    if not run.outputs.names:
        return None
    try:
        return measure_outputs(run.task, run.outputs).value
    except LaminaError:  # it is undefined on these images
        return None
