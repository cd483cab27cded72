"""Runs that were tested on different images: what they predict for the images that they share.

Images are the same if their pixels are. Runs that resized the images of one source in different
ways share the images that have the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from lamina.errors import DataError, LaminaError, name_some, plural
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import measure_outputs
from lamina.targets import MULTI_LABEL, SINGLE_LABEL, Score, Targets
from lamina.training.task import Task

LEAST_SHARED = 10


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A run's predictions for the images that it was tested on.

    Attributes:
        name: of the run, in messages.
        task: of the model.
        outputs: the stored logits.
        source: where the images come from; empty for arrays.
        resizing: how they were resized, and their shape.
        created: when the run began, in ISO 8601; the targets of the newest run count.
    """

    name: str
    task: Task
    outputs: Outputs
    source: str
    resizing: tuple[Any, ...]
    created: str


@dataclass(frozen=True)
class Rest:
    """How the images of a run differ from those that all runs share.

    Attributes:
        corrected: number of shared images that have another target in the newest run.
        images: number of images that another run lacks.
        score: the score on these; ``None`` if it is undefined.
    """

    corrected: int
    images: int
    score: float | None


@dataclass(frozen=True)
class Aligned:
    """The predictions of runs for the same images with the same targets.

    Attributes:
        runs: the runs, with the rows of their outputs in one order.
        rests: what else each run has; empty if all were tested on the same images.
        classes: the classes or labels that are compared, if the runs know different ones.
        conflicts: the images of the newest run that were left out, because other images with the
            same pixels have another target.
    """

    runs: tuple[Evaluated, ...]
    rests: tuple[Rest, ...] = ()
    classes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sharing:
    """Which images a comparison of A and B uses, if the runs were tested on different ones.

    Other runs may be compared at the same time; all share the images.

    Attributes:
        a: what else A has.
        b: what else B has.
        classes: the classes or labels that are compared, if the runs know different ones.
        conflicts: images that were left out, because they are identical and have two targets.
    """

    a: Rest
    b: Rest
    classes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    def lines(self, metric: str) -> list[str]:
        """The same as sentences."""
        lines = ["compared on the images that all runs were tested on and none was trained on"]
        if self.classes:
            lines.append(f"only the classes that all runs know: {name_some(self.classes)}")
        if self.conflicts:
            images = plural(len(self.conflicts), "image", "images")
            lines.append(
                f"without {images} that are identical to others with another label:"
                f" {name_some(self.conflicts)}"
            )
        for letter, rest in (("A", self.a), ("B", self.b)):
            if rest.corrected:
                labels = plural(rest.corrected, "label that was", "labels that were")
                text = "corrected in newer data; the newer labels count"
                lines.append(f"{letter} has {labels} {text}")
            if rest.images:
                images = plural(rest.images, "other image", "other images")
                score = "" if rest.score is None else f": {Score(metric, rest.score)}"
                lines.append(f"{letter} has {images}{score}")
        return lines


def are_alike(runs: Sequence[Evaluated]) -> bool:
    """Whether all runs were tested on the same images with the same targets and groups."""
    return all(_is_alike(run, runs[0]) for run in runs)


def _is_alike(run: Evaluated, first: Evaluated) -> bool:
    names = (run.outputs.names, run.outputs.groups, run.task.target_names)
    return (
        names == (first.outputs.names, first.outputs.groups, first.task.target_names)
        and np.array_equal(run.outputs.targets, first.outputs.targets)
        and _has_same_digests(run, first)
    )


def _has_same_digests(run: Evaluated, first: Evaluated) -> bool:
    """Whether pixels, and images that a run was trained on, are the same, as far as is known."""
    digests = run.outputs.digests
    others = first.outputs.digests
    if digests is None or others is None:
        return True
    if run.resizing == first.resizing:
        return np.array_equal(digests, others)
    return np.array_equal(digests.any(axis=1), others.any(axis=1))


def align_images(runs: Sequence[Evaluated]) -> Aligned:
    """As :func:`share_images`; runs that are alike are returned as they are."""
    if are_alike(runs):
        return Aligned(tuple(runs))
    return share_images(runs)


def find_newest(runs: Sequence[Evaluated]) -> Evaluated:
    """The run that began last."""
    return max(runs, key=lambda run: run.created)


def share_images(runs: Sequence[Evaluated]) -> Aligned:
    """The predictions for the shared images with the newest targets, and what differs.

    Raises:
        DataError: They share fewer than 10 images, or fewer than two classes.
    """
    newest = find_newest(runs)
    names = _share_names(runs, newest)
    keys = _list_keys(runs)
    common = set(keys[0]).intersection(*keys[1:]) - {None}
    newest_keys = keys[runs.index(newest)]
    conflicting = common & _find_conflicts(newest_keys, newest.outputs.targets)
    are_known = np.ones(len(newest.outputs.names), np.bool_)
    if newest.task.kind is SINGLE_LABEL:
        known = [newest.task.target_names.index(name) for name in names]
        are_known = np.isin(newest.outputs.targets, known)
    usable = common - conflicting
    listed = zip(newest_keys, are_known, strict=True)
    shared = list(dict.fromkeys(key for key, is_known in listed if is_known and key in usable))
    if len(shared) < LEAST_SHARED:
        raise _too_few(runs, len(shared))
    rows = []
    for keys_of_run in keys:
        places = {key: row for row, key in enumerate(keys_of_run)}
        rows.append(np.array([places[key] for key in shared], np.int64))
    parts = [_select(run, places, names) for run, places in zip(runs, rows, strict=True)]
    latest = parts[runs.index(newest)].outputs
    judged = []
    rests = []
    for run, part, keys_of_run in zip(runs, parts, keys, strict=True):
        outputs = replace(part.outputs, targets=latest.targets, groups=latest.groups)
        judged.append(replace(part, outputs=outputs))
        differ = (part.outputs.targets != latest.targets).reshape(len(shared), -1).any(axis=1)
        alone = [
            row for row, key in enumerate(keys_of_run) if key is not None and key not in common
        ]
        rests.append(_describe_rest(run, int(differ.sum()), np.array(alone, np.int64)))
    knows_same = all(set(run.task.target_names) == set(names) for run in runs)
    left_out = zip(newest.outputs.names, newest_keys, strict=True)
    return Aligned(
        runs=tuple(judged),
        rests=tuple(rests),
        classes=() if knows_same else names,
        conflicts=tuple(name for name, key in left_out if key in conflicting),
    )


def _find_conflicts(keys: Sequence[object], targets: Targets) -> set[object]:
    """What identifies several images with different targets."""
    first: dict[object, bytes] = {}
    conflicting = set()
    for key, target in zip(keys, targets, strict=True):
        if first.setdefault(key, target.tobytes()) != target.tobytes():
            conflicting.add(key)
    return conflicting


def _too_few(runs: Sequence[Evaluated], shared: int) -> DataError:
    """Why the runs cannot be compared."""
    sources = {run.source for run in runs}
    undigested = [run.name for run in runs if run.outputs.digests is None]
    reason = ""
    if len({run.resizing for run in runs}) > 1:
        reason = "The runs resized their images differently"
    if undigested:
        reason = f"{name_some(undigested)} stored no digests of the images"
    if reason and (len(sources) > 1 or "" in sources):
        return DataError(
            f"{reason}, so lamina can only find the images that the runs share by their names in"
            f" one data set; the runs loaded theirs from {', '.join(map(_name_source, runs))}."
            " Compare runs on the same data set."
        )
    counts = [f"{run.name} on {len(run.outputs.names):,}" for run in runs]
    return DataError(
        f"Of the images that the runs were tested on ({', '.join(counts)}),"
        f" {plural(shared, 'is', 'are')} in all of them and in no training set. Compare runs that"
        f" share at least {LEAST_SHARED} images."
    )


def _name_source(run: Evaluated) -> str:
    return run.source or "arrays"


def _list_keys(runs: Sequence[Evaluated]) -> list[list[object]]:
    """What identifies each image; ``None`` for an image that the run was trained on."""
    first = runs[0]
    have_same_pixels = all(
        run.resizing == first.resizing and run.outputs.digests is not None for run in runs
    )
    is_same_source = bool(first.source) and all(run.source == first.source for run in runs)
    by_name = is_same_source and not have_same_pixels
    listed = []
    for run in runs:
        digests = run.outputs.digests
        keys: list[object] = [None] * len(run.outputs.names)
        if by_name:
            keys = list(run.outputs.names)
        elif digests is not None:
            keys = [digest.tobytes() for digest in digests]
        if digests is not None:
            for row in np.flatnonzero(~digests.any(axis=1)):
                keys[row] = None
        listed.append(keys)
    return listed


def _share_names(runs: Sequence[Evaluated], newest: Evaluated) -> tuple[str, ...]:
    """The classes, labels or numbers that all runs know, in the order of the newest run."""
    known = [run.task.target_names for run in runs]
    names = tuple(
        name for name in newest.task.target_names if all(name in other for other in known)
    )
    kind = newest.task.kind
    least = 2 if kind is SINGLE_LABEL else 1
    is_part = kind in (SINGLE_LABEL, MULTI_LABEL) and len(names) >= least
    if not is_part and any(other != names for other in known):
        listed = [f"{run.name} has {name_some(run.task.target_names)}" for run in runs]
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
    values: dict[str, Any] = {"target_names": names}
    fields = ["shares"]
    if task.kind is SINGLE_LABEL:
        numbers = np.full(task.outputs, -1)
        numbers[places] = np.arange(len(places))
        targets = numbers[targets]
    else:
        targets = targets[:, places]
        fields += ["temperatures", "thresholds"]
    for field in fields:
        old = getattr(task, field)
        values[field] = tuple(old[place] for place in places) if old else ()
    selected = replace(outputs, logits=outputs.logits[:, places], targets=targets)
    return replace(run, task=replace(task, **values), outputs=selected)


def _describe_rest(run: Evaluated, corrected: int, rows: Int64[np.ndarray, " m"]) -> Rest:
    score = None
    if len(rows):
        with suppress(LaminaError):  # it may be undefined on these images
            score = measure_outputs(run.task, run.outputs.take(rows)).value
    return Rest(corrected, len(rows), score)
