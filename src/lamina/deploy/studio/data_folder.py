"""The data sets of the studio: the built-in ones, and all in the folder of the command."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.data import NAMES
from lamina.data.corrections import ADVICE, format_rows
from lamina.data.formats import SUFFIXES
from lamina.data.option_files import read_pairs, read_rows
from lamina.data.sources.class_folders import RESULTS, is_image_path
from lamina.data.sources.columns import IMAGE_NAMES, LABEL_NAMES, ROW_NAMES, SPLIT_NAMES
from lamina.data.sources.downloads import PUBLISHED, downloaded_path
from lamina.data.sources.table import HEADER_BYTES
from lamina.data.sources.table import SUFFIXES as TABLES
from lamina.data.splits import find_splits
from lamina.errors import DataError
from lamina.files import write_atomically

FILES = (*TABLES, ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".npz")
TARGET = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|true|false", re.IGNORECASE)  # in a table
# file in each set that is made on the page; the studio changes no other folders
MARK = ".made-by-lamina-studio"
CORRECTIONS = (  # end of the name of a table of corrected labels, beside the data set
    "-corrections.csv"
)


@dataclass(frozen=True)
class DataFolder:
    """The folder of the studio's data sets, without folders of runs, such as ``runs_dir``."""

    path: Path
    runs_dir: Path

    def list_sources(self) -> list[dict[str, str]]:
        """Name and source of each data set or the folder, the built-in ones, other folders."""
        children = self._list()
        is_own = self._is_own(children)
        data = [path for path in children if _is_data(path)]
        others = [path for path in children if path not in data and _may_be_data(path)]
        if is_own:
            data = [self.path]
            others = []
        elif sum(map(_has_image, others)) > 1:  # some of its folders may be classes
            data.append(self.path)
        sources = [{"name": path.name, "source": str(path)} for path in data]
        sources += [{"name": name, "source": name} for name in NAMES if name not in PUBLISHED]
        sources += [{"name": name, "source": name} for name in PUBLISHED]
        for path in others:
            reason = "no class folders found" if path.is_dir() else "no images with targets found"
            sources.append({"name": f"{path.name} ({reason})", "source": str(path)})
        return sources

    def check(self, source: str) -> str:
        """The source, if the studio may use it; ``DataError`` otherwise."""
        if source in NAMES:
            return source
        path = Path(source).resolve()
        if not (Path(source).is_absolute() and path.is_relative_to(self.path)):
            raise DataError(
                f"{source[:100]} is not in {self.path}, the folder that the studio may read. Choose"
                " a data set from the list, or start lamina studio with --data FOLDER."
            )
        return str(path)

    def find_corrections(self, source: str) -> Path:
        """The table of the labels that were corrected in the studio; it need not exist."""
        path = Path(self.check(source))
        beside = path.parent if source not in NAMES and path != self.path else self.runs_dir
        return beside / f"{path.name}{CORRECTIONS}"

    def correct(self, source: str, choices: Mapping[str, str] | None) -> dict[str, str]:
        """Add labels by image to the table of corrections; returns all corrections.

        ``exclude`` leaves out an image; an empty label removes its correction. ``None`` deletes the
        table.
        """
        file = self.find_corrections(source)
        if file.exists() and read_rows(str(file), "labels_from")[:1] != [["image", "correct"]]:
            raise DataError(
                f"{file} has other columns than image and correct, so the studio did not make it."
                " To correct labels here, move it to another folder."
            )
        corrections: dict[str, str] = {}
        if file.exists():
            corrections = dict(read_pairs(str(file), "labels_from", "correct", ADVICE))
        for image, label in (choices or {}).items():
            corrections[image.encode("utf-8", "backslashreplace").decode()] = label
        if choices is None:
            corrections = {}
        corrections = {image: label for image, label in corrections.items() if label}
        table = format_rows([("image", "correct"), *corrections.items()])
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, table) if corrections else file.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"Cannot write {file}: {error.strerror or error}. Free some space; try again."
            ) from None
        return corrections

    def check_new(self, name: str) -> Path:
        """The folder for new data sets; ``DataError`` if this name would not be a data set."""
        if self.path / name.strip() == self.runs_dir.resolve():
            raise DataError(f"{name} is the folder of the runs. Use another name.")
        if self._is_own(self._list()):
            reason = f"{self.path} is itself a data set, so {name} would become one of its classes"
            raise DataError(f"{reason}. Start lamina studio with another --data.")
        return self.path

    def _is_own(self, children: list[Path]) -> bool:
        """Whether the folder is a data set: all its folders are classes, or all are splits."""
        folders = [path for path in children if path.is_dir()]
        are_splits = len(find_splits(path.name for path in folders)) == len(folders) and any(
            map(_has_classes, folders)
        )
        are_classes = (len(folders) > 1 and all(map(_has_image, folders))) or (
            self.path / MARK
        ).exists()
        return are_classes or are_splits

    def _list(self) -> list[Path]:
        """What may be data: neither hidden nor runs nor corrections."""
        try:
            paths = sorted(path for path in self.path.iterdir() if not path.name.startswith("."))
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"Cannot read {self.path}: {reason}. Start lamina studio with another --data."
            ) from error
        runs_dir = self.runs_dir.resolve()
        paths = [path for path in paths if path != runs_dir and not _holds_runs(path)]
        return [path for path in paths if not path.name.endswith(CORRECTIONS)]


def find_download_mb(source: str) -> int:
    """The size of what has to be downloaded first; 0 if the data set is on this machine."""
    if source not in PUBLISHED or downloaded_path(source).exists():
        return 0
    if source == "cifar10" and os.environ.get("LAMINA_CIFAR10"):
        return 0
    return PUBLISHED[source].size_mb


def check_is_here(source: str) -> None:
    """``DataError`` if the data set would have to be downloaded: only the user may decide that."""
    download_mb = find_download_mb(source)
    if download_mb:
        raise DataError(
            f"{source} is not on this machine yet ({download_mb} MB). Choose it under Data, and"
            " press Download."
        )


def _may_be_data(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith(TABLES)


def _is_data(path: Path) -> bool:
    if path.is_file():
        return path.name.lower().endswith(FILES) and _may_have_targets(path)
    return _has_classes(path) or _has_splits(path)


def _may_have_targets(file: Path) -> bool:
    """Whether the first row of a table names an image and has targets; other files are not read."""
    if not file.name.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson")):
        return True
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            head, first = opened.readline(HEADER_BYTES), opened.readline(HEADER_BYTES)
        separator = next((mark for mark in "\t;," if mark in head), ",")
        rows = csv.reader([head, first], delimiter=separator)
        row = json.loads(head) if head.startswith("{") else dict(zip(*rows, strict=False))
    except (OSError, ValueError, TypeError, RecursionError, csv.Error):
        return True  # lamina data says what is wrong
    row = {re.sub(r"[ -]", "_", name.strip().lower()): str(value) for name, value in row.items()}
    has_image = not row.keys().isdisjoint(IMAGE_NAMES) or any(map(is_image_path, row.values()))
    known = (*IMAGE_NAMES, *SPLIT_NAMES, *ROW_NAMES)
    others = [
        value for name, value in row.items() if name not in known and not is_image_path(value)
    ]
    has_targets = bool(others) and all(map(TARGET.fullmatch, others))
    return has_image and (has_targets or not row.keys().isdisjoint(LABEL_NAMES))


def _holds_runs(path: Path) -> bool:
    """Whether a folder is a run or study, or contains one."""
    places = (path, *map(Path, _list_some(path, only_folders=True))) if path.is_dir() else ()
    return any(
        all((place / name).exists() for name in names) for place in places for names in RESULTS
    )


def _has_splits(path: Path | str) -> bool:
    return any(
        find_splits([Path(child).name]) and _has_classes(child) for child in _list_some(path)
    )


def _has_classes(path: Path | str) -> bool:
    return any(map(_has_image, _list_some(path)))


def _has_image(path: Path | str) -> bool:
    return any(child.lower().endswith(SUFFIXES) for child in _list_some(path))


def _list_some(path: Path | str, *, only_folders: bool = False) -> list[str]:
    """Some entries of a folder; none of a file, or if it cannot be read."""
    try:
        with os.scandir(path) as entries:
            some = [entry for entry, _ in zip(entries, range(50), strict=False)]
            return [entry.path for entry in some if not only_folders or entry.is_dir()]
    except OSError:
        return []
