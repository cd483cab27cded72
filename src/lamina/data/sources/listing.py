"""What a source holds before anything of it is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamina.data.decoding import Picture
from lamina.data.images import Problem, Split


@dataclass(frozen=True)
class Listing:
    """The pictures of a source in its own order, and what it says of each.

    Attributes:
        pictures: where each encoded picture lies.
        splits: of each picture, as the source tells it; ``None`` where it tells none.
        labels: by column, what the source says of each picture, as it stands there: text, a truth value, a number or
            a list of texts, ``None`` where nothing is given. A folder has one column, ``class``.
        problems: what was found and is no usable picture.
        digest: tells whether the source has changed since, by sizes and times.
        target_names: the classes or labels in the source's own order, where it tells one.
        label_reason: where the labels are from, in plain words, such as ``column 'label'``.
    """

    pictures: Sequence[Picture]
    splits: Sequence[Split | None]
    labels: Mapping[str, Sequence[object]]
    problems: Sequence[Problem]
    digest: str
    target_names: Sequence[str] | None = None
    label_reason: str = "the folders' names"
