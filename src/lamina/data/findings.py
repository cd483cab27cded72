"""What is wrong with a data set, in words: what it does to a training, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool

from lamina.data.images import SPLITS, Dataset, Images, Problem, Split
from lamina.targets import REGRESSION, SINGLE_LABEL

Kind = Literal[
    "leak",
    "conflict",
    "class-missing",
    "unreadable",
    "duplicate",
    "blank",
    "number-constant",
    "class-tiny",
    "imbalance",
    "oblong",
    "enlarged",
    "grey",
]
"""In the order in which they matter."""
Severity = Literal["error", "warning", "note"]

TINY_CLASS_IMAGES = 10
TINY_CLASS_FRACTION = 1 / 20
"""A class is suspiciously tiny with fewer training images than the first, or than this share of the median class's."""
IMBALANCE_RATIO = 10.0
"""So many times as many training images of the largest class as of the smallest are worth a note."""
CLASSES_NAMED = 5
JUDGED: tuple[tuple[Split, Split], ...] = (("test", "train"), ("val", "train"), ("test", "val"))
"""A split that judges, and one that has been learned from or chosen by before."""


class Sighting(NamedTuple):
    """A picture that a finding is about.

    ``split`` and ``target``, which is in words, are ``None`` for one that could not be read.
    """

    split: Split | None
    name: str
    target: str | None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or good to know, about a data set.

    Attributes:
        kind: which of the things that are looked for.
        severity: ``error`` where figures would be wrong or a target can't be learned; ``warning`` where a training is
            worse for it; ``note`` where it may be meant.
        message: what is wrong and what to do.
        count: how many pictures it is about, or how many classes.
        images: those pictures, all of them; none where it is about classes.
        twins: of pictures that are the same as others, for each the first that it is the same as.
    """

    kind: Kind
    severity: Severity
    message: str
    count: int
    images: tuple[Sighting, ...] = ()
    twins: tuple[Sighting, ...] = ()


@dataclass(frozen=True, eq=False)
class Facts:
    """What was seen of the pictures of all splits, one after the other.

    Attributes:
        dataset: the data set.
        duplicates: groups of places with the same pixels.
        blank: which pictures show one colour.
        grey: which of the others have three equal channels.
        enlarged: which were scaled up.
        oblong: which had other proportions by far.
    """

    dataset: Dataset
    duplicates: Sequence[tuple[int, ...]]
    blank: Bool[np.ndarray, " n"]
    grey: Bool[np.ndarray, " n"]
    enlarged: Bool[np.ndarray, " n"]
    oblong: Bool[np.ndarray, " n"]

    @property
    def images(self) -> int:
        """How many there are, in all splits."""
        return len(self.blank)

    @cached_property
    def _rows(self) -> list[tuple[Images, int]]:
        return [(images, row) for images in self.dataset.splits.values() for row in range(len(images))]

    def split(self, place: int) -> Split:
        """The split that a picture belongs to."""
        return self._rows[place][0].split

    def have_same_target(self, place: int, other: int) -> bool:
        """Whether the same is to be learned of two pictures."""
        (images, row), (others, other_row) = self._rows[place], self._rows[other]
        return bool((images.targets[row] == others.targets[other_row]).all())

    def sight(self, place: int) -> Sighting:
        """A picture's split, name and target."""
        images, row = self._rows[place]
        return Sighting(images.split, images.names[row], tell_target(images, row))

    def sight_all(self, places: Iterable[int] | Bool[np.ndarray, " n"]) -> tuple[Sighting, ...]:
        """Several pictures, by their places or by a mask."""
        chosen = np.flatnonzero(places).tolist() if isinstance(places, np.ndarray) else places
        return tuple(map(self.sight, chosen))


def find_faults(facts: Facts) -> tuple[Finding, ...]:
    """All that is wrong: errors, warnings, notes, and of each what matters most first."""
    found = [
        *_find_leaks(facts),
        *_find_conflicts(facts),
        *_find_missing(facts.dataset),
        *_find_unreadable(facts.dataset),
        *_find_copies(facts),
        *_find_blank(facts),
        *_find_constant(facts.dataset.train),
        *_find_tiny(facts.dataset.train),
        *_find_imbalance(facts.dataset.train),
        *_find_misfits(facts),
        *_find_grey(facts),
    ]
    severities, kinds = get_args(Severity), get_args(Kind)
    return tuple(sorted(found, key=lambda one: (severities.index(one.severity), kinds.index(one.kind))))


def tell_target(images: Images, row: int) -> str:
    """What is to be learned of an image, in words.

    >>> pixels = np.zeros((2, 1, 1, 3), np.uint8)
    >>> labels = np.array([[True, True], [False, False]])
    >>> images = Images(pixels, labels, ("wet", "warm"), ("a", "b"), "train")
    >>> tell_target(images, 0), tell_target(images, 1)
    ('wet, warm', 'none')
    """
    return images.kind.format(images.targets[row], images.target_names)


def imbalance(images: Images) -> float | None:
    """Images of the largest class as a multiple of those of the smallest that has any; of numbers, ``None``."""
    counts = [count for count in images.target_counts().values() if count]
    return max(counts) / min(counts) if counts else None


def _find_leaks(facts: Facts) -> Iterator[Finding]:
    for judge, earlier in JUDGED:
        pairs = []
        for group in facts.duplicates:
            twin = next((place for place in group if facts.split(place) == earlier), None)
            if twin is not None:
                pairs += [(place, twin) for place in group if facts.split(place) == judge]
        if pairs:
            images, twins = zip(*pairs, strict=True)
            effect = (
                f"{judge} judges in part what was learned by heart"
                if earlier == "train"
                else f"what was chosen by {earlier} is judged by it again"
            )
            yield Finding(
                "leak",
                "error",
                f"{_pictures(len(pairs), 'is', 'are')} in {judge} and also in {earlier}, to the pixel: {effect}. "
                f"Remove {'it' if len(pairs) == 1 else 'them'} from one of the two.",
                len(pairs),
                facts.sight_all(images),
                facts.sight_all(twins),
            )


def _find_conflicts(facts: Facts) -> Iterator[Finding]:
    pairs = []
    for first, *others in facts.duplicates:
        differing = next((place for place in others if not facts.have_same_target(place, first)), None)
        if differing is not None:
            pairs.append((differing, first))
    if pairs:
        images, twins = zip(*pairs, strict=True)
        yield Finding(
            "conflict",
            "error",
            f"{_pictures(len(pairs), 'is', 'are')} there more than once, to the pixel, with different targets, and no "
            "net can learn both. Keep the one whose target is right.",
            len(pairs),
            facts.sight_all(images),
            facts.sight_all(twins),
        )


def _find_missing(dataset: Dataset) -> Iterator[Finding]:
    if dataset.train.kind is SINGLE_LABEL and len(dataset.train.target_names) == 1:
        yield Finding(
            "class-missing",
            "error",
            f"there is one class only, {dataset.train.target_names[0]}; there is nothing to tell it from. Add pictures "
            "of another, or tell by --label-from or --label-column what else is the class.",
            1,
        )
    for split, images in dataset.splits.items():
        missing = [name for name, count in images.target_counts().items() if not count]
        if missing:
            remedy = (
                "can be learned of that: add some, or leave it out" if split == "train" else "is judged there: add some"
            )
            yield Finding(
                "class-missing",
                "error" if split == "train" else "warning",
                f"{split} has no pictures of {_list(missing)}; nothing {remedy}.",
                len(missing),
            )


def _find_unreadable(dataset: Dataset) -> Iterator[Finding]:
    # What follows a colon is about one file alone, as in "damaged: broken data stream".
    groups: dict[str, list[Problem]] = {}
    for problem in dataset.problems:
        groups.setdefault(problem.reason.split(":")[0], []).append(problem)
    for reason, problems in sorted(groups.items(), key=lambda group: -len(group[1])):
        files = "1 file is" if len(problems) == 1 else f"{len(problems):,} files are"
        yield Finding(
            "unreadable",
            "warning",
            f"{files} left out: {reason}. Repair, replace or remove {'it' if len(problems) == 1 else 'them'}.",
            len(problems),
            tuple(Sighting(None, problem.path, None) for problem in problems),
        )


def _find_copies(facts: Facts) -> Iterator[Finding]:
    for split in SPLITS:
        pairs = []
        for group in facts.duplicates:
            first, *others = [place for place in group if facts.split(place) == split] or [-1]
            # Of those with another target a conflict tells.
            pairs += [(place, first) for place in others if facts.have_same_target(place, first)]
        if pairs:
            images, twins = zip(*pairs, strict=True)
            yield Finding(
                "duplicate",
                "warning",
                f"{_pictures(len(pairs), 'is a copy', 'are copies')} of others in {split}, to the pixel, which count "
                "twice or more. Keep one of each.",
                len(pairs),
                facts.sight_all(images),
                facts.sight_all(twins),
            )


def _find_blank(facts: Facts) -> Iterator[Finding]:
    if count := int(facts.blank.sum()):
        yield Finding(
            "blank",
            "warning",
            f"{_pictures(count, 'is', 'are')} blank: of one colour, or nearly. "
            f"Remove {'it' if count == 1 else 'them'}, or look how {'it' if count == 1 else 'they'} came to be.",
            count,
            facts.sight_all(facts.blank),
        )


def _find_constant(train: Images) -> Iterator[Finding]:
    if train.kind is not REGRESSION or not len(train):
        return
    constant = (train.targets == train.targets[0]).all(axis=0)
    if constant.any():
        names = [name for name, same in zip(train.target_names, constant, strict=True) if same]
        yield Finding(
            "number-constant",
            "warning",
            f"{_list(names)} {'is' if len(names) == 1 else 'are'} the same for all pictures of train: there is nothing "
            "to learn. Check the table, or leave the column out.",
            len(names),
        )


def _find_tiny(train: Images) -> Iterator[Finding]:
    counts = {name: count for name, count in train.target_counts().items() if count}
    median = float(np.median(list(counts.values()))) if counts else 0.0
    tiny = [f"{name} ({count})" for name, count in counts.items() if _is_tiny(count, median)]
    if tiny:
        yield Finding(
            "class-tiny",
            "warning",
            f"train has few pictures of {_list(tiny)}; the median class has {median:,.0f}. "
            "Add more, or join classes that belong together.",
            len(tiny),
        )


def _is_tiny(count: int, median: float) -> bool:
    return count < TINY_CLASS_IMAGES or count < TINY_CLASS_FRACTION * median


def _find_imbalance(train: Images) -> Iterator[Finding]:
    ratio = imbalance(train)
    if ratio is not None and ratio >= IMBALANCE_RATIO:
        counts = {name: count for name, count in train.target_counts().items() if count}
        largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
        yield Finding(
            "imbalance",
            "note",
            f"train has {ratio:,.0f} times as many pictures of {largest} ({counts[largest]:,}) as of {smallest} "
            f"({counts[smallest]:,}). Train with --balance on to let each count alike.",
            len(counts),
        )


def _find_misfits(facts: Facts) -> Iterator[Finding]:
    _, height, width = facts.dataset.train.shape
    if count := int(facts.oblong.sum()):
        resize = facts.dataset.resize
        effect = {
            "crop": "less than half of each is left. Choose --resize pad to see them whole.",
            "pad": "more than half of what is made of each are bars. Crop them to what matters.",
            "stretch": "they are badly out of shape. Choose --resize pad to keep their proportions.",
        }[resize]
        yield Finding(
            "oblong",
            "note",
            f"{_pictures(count, 'is', 'are')} so long or tall that, made to fit {height}×{width} by {resize}, {effect}",
            count,
            facts.sight_all(facts.oblong),
        )
    if count := int(facts.enlarged.sum()):
        yield Finding(
            "enlarged",
            "note",
            f"{_pictures(count, 'is', 'are')} smaller than {height}×{width} and enlarged, which adds nothing to see. "
            "A smaller --size trains faster.",
            count,
            facts.sight_all(facts.enlarged),
        )


def _find_grey(facts: Facts) -> Iterator[Finding]:
    count = int(facts.grey.sum())
    if 0 < count < facts.images - facts.blank.sum():
        yield Finding(
            "grey",
            "note",
            f"{_pictures(count, 'is', 'are')} grey among coloured ones. Check that this tells nothing of the target.",
            count,
            facts.sight_all(facts.grey),
        )


def _pictures(count: int, one: str, several: str) -> str:
    return f"1 picture {one}" if count == 1 else f"{count:,} pictures {several}"


def _list(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    named = ", ".join(names[:CLASSES_NAMED])
    return f"{named} and {len(names) - CLASSES_NAMED} more" if len(names) > CLASSES_NAMED else named
