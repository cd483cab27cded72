"""Recognizes data sets and runs in a folder by some of its entries, without reading them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from lamina.data.decoding import SUFFIXES
from lamina.data.sources.scan import RESULTS
from lamina.data.sources.table_files import is_table
from lamina.data.splits import find_splits

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".npz")
EXAMINED = 50  # entries of a folder


def is_data(path: Path) -> bool:
    """Whether a path is an archive, or has folders of images or classes; does not read tables."""
    if not path.is_dir():
        return path.name.lower().endswith(ARCHIVES) and not is_table(path)
    return has_classes(path) or any(
        find_splits([child.name]) and has_classes(child) for child in _list_some(path)
    )


def holds_runs(path: Path) -> bool:
    """Whether a folder is a run or study, or contains one."""
    return any(
        all((place / name).exists() for name in names)
        for place in (path, *_list_some(path))
        for names in RESULTS
    )


def has_classes(path: Path) -> bool:
    """Whether a folder has folders of images."""
    return any(map(has_image, _list_some(path)))


def has_image(path: Path) -> bool:
    """Whether a folder has images."""
    return any(child.name.lower().endswith(SUFFIXES) for child in _list_some(path))


def _list_some(path: Path) -> list[Path]:
    """Some entries of a folder; none for a file or an unreadable folder."""
    try:
        with os.scandir(path) as entries:
            return [Path(entry) for entry in islice(entries, EXAMINED)]
    except OSError:
        return []
