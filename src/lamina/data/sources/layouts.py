"""Tell splits from classes by the names of folders; refuse names that could be either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina.data.preparation import LabelFrom
from lamina.data.splits import SPLIT_WORDS, SPLITS, Split, find_splits
from lamina.errors import DataError, name_some, suggest

LAYOUT = (
    "Expected a folder of images for each class, or train/, val/ and test/ folders that contain"
    " these."
)
NAMED = 3  # folders named in a message


@dataclass(frozen=True)
class Layout:
    """The splits of the top-level folders; ``None`` for images without classes.

    Without splits, the folders are classes. ``inner`` has the splits with one more folder around
    all class folders, as in ``seg_train/seg_train``.
    """

    splits: Mapping[str, Split | None] = field(default_factory=dict)
    inner: frozenset[str] = frozenset()

    def place(self, path: str) -> tuple[Split | None, list[str], str]:
        """The split of an image, its path in the split, and the reason if it is left out."""
        parts = path.split("/")
        if not self.splits or len(parts) == 1:
            return None, parts, ""
        top, *parts = parts
        if top not in self.splits:
            return None, parts, "in a folder that --splits does not name"
        split = self.splits[top]
        return (
            split,
            parts[top in self.inner :],
            "" if split else "in a folder for images without classes",
        )


def find_layout(
    paths: Sequence[str],
    source: Path,
    label_from: LabelFrom | None,
    given: Sequence[str],
    hint: str = "",
) -> Layout:
    """The layout of a folder with images at these paths; ``DataError`` if it is ambiguous."""
    subfolders: dict[str, set[str]] = {}
    for top, *rest in (path.split("/") for path in paths):
        if rest:
            subfolders.setdefault(top, set()).update(rest[:1] if len(rest) > 1 else ())
    if given:
        return Layout(
            splits := _read_given(given, subfolders, source), _find_inner(splits, subfolders)
        )
    splits = find_splits(subfolders)
    plain = {top for top in subfolders if top.lower() in SPLIT_WORDS}
    is_deep = any(subfolders.values()) or label_from == "filename"
    is_divided = bool(splits) and ("train" in splits.values() or len(plain) == len(splits))
    if is_deep and is_divided and splits.keys() == subfolders.keys():
        counts = Counter(splits.values())
        several = [top for top, split in splits.items() if split and counts[split] > 1]
        if several and label_from != "folder":
            what = f"its folders {name_some(several, NAMED)} seem to be the same split"
            raise _ambiguous(source, what, splits)
        return Layout() if several else Layout(splits, _find_inner(splits, subfolders))
    if label_from == "folder" or (
        label_from == "filename" and not {"train"} < set(splits.values())
    ):
        return Layout()
    shared = _find_shared(subfolders) if label_from is None else set()
    others = sorted(subfolders.keys() - splits)
    is_split = (
        {"train"} < set(splits.values())
        or len(plain) > 1
        or any(len(subfolders[top]) > 1 for top in plain)
    )
    if is_split or (shared and splits):
        beside = f"also {name_some(others, NAMED)}" if others else "no class folders inside them"
        what = f"it contains {', '.join(sorted(splits))} and {beside}"
        raise _ambiguous(source, what, splits, is_deep=is_deep, hint=hint)
    if shared:
        tops = [top for top, found in subfolders.items() if len(found & shared) > 1]
        what = (
            f"its folders {name_some(tops, NAMED)} share the subfolders"
            f" {name_some(sorted(shared), NAMED)}"
        )
        raise _ambiguous(source, what, {})
    return Layout()


def _find_inner(
    splits: Mapping[str, Split | None], subfolders: Mapping[str, set[str]]
) -> frozenset[str]:
    """The splits with one more folder of this name, or of this split, around all their images."""
    single = {top: next(iter(subfolders[top])) for top in splits if len(subfolders[top]) == 1}
    return frozenset(
        top
        for top, inside in single.items()
        if inside.lower() == top.lower() or find_splits([inside]).get(inside, "none") == splits[top]
    )


def _find_shared(subfolders: Mapping[str, set[str]]) -> set[str]:
    """The names of subfolders in several folders, if most subfolders of two folders are shared."""
    counts = Counter(name for found in subfolders.values() for name in found)
    shared = {name for name, count in counts.items() if count > 1}
    alike = [
        top for top, found in subfolders.items() if len(found & shared) > max(1, len(found) / 2)
    ]
    return set().union(*(subfolders[top] & shared for top in alike)) if len(alike) > 1 else set()


def _read_given(
    given: Sequence[str], folders: Iterable[str], source: Path
) -> dict[str, Split | None]:
    splits: dict[str, Split | None] = {}
    for pair in given:
        split, _, folder = pair.partition("=")
        found = next((one for one in SPLITS if one == split), None)
        if found is None or not folder:
            raise DataError(
                f"--splits has {pair!r}; expected train, val or test, = and a folder, as in"
                " test=Testing."
            )
        if folder not in folders:
            raise DataError(
                f"{source} has no folder of images {folder!r} for --splits."
                f" {suggest(folder, sorted(folders))}"
            )
        splits[folder] = found
    return splits


def _ambiguous(
    source: Path,
    what: str,
    splits: Mapping[str, Split | None],
    *,
    is_deep: bool = True,
    hint: str = "",
) -> DataError:
    """Name the options that settle it, with the folders whose split is known."""
    pairs = [f"{split}={folder}" for folder, split in splits.items() if split] or [
        "train=FOLDER",
        "test=FOLDER",
    ]
    shown = " ".join(f"'{pair}'" if " " in pair else pair for pair in pairs)
    if not is_deep:
        return DataError(
            f"{source} is ambiguous: {what}. {LAYOUT} If file names begin with the class, use "
            f"--label-from filename (in Python, label_from='filename').{hint}"
        )
    return DataError(
        f"{source} is ambiguous: {what}. {LAYOUT} To name the splits, use --splits {shown} (in"
        " Python, splits); lamina leaves out the other folders. If the outermost folders are the"
        " classes, use --label-from folder; if the innermost are, use --label-from parent."
    )
