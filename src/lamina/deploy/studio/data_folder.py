"""The data sets of the studio: the built-in sets, and all sets in the folder of the command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lamina.data import NAMES
from lamina.data.corrections import ADVICE, format_rows
from lamina.data.decoding import SUFFIXES
from lamina.data.option_files import read_pairs, read_rows
from lamina.data.sources.published import PUBLISHED, find_download_mb
from lamina.data.sources.scan import RESULTS
from lamina.data.sources.table_files import is_table
from lamina.data.splits import find_splits
from lamina.errors import DataError, RunError, suggest
from lamina.files import lock_folder, write_atomically

# file in each set that is made on the page; the studio changes no other folders
MARK = ".made-by-lamina-studio"
# end of the name of a table of corrected labels, beside the data set
CORRECTIONS = "-corrections.csv"
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".npz")
# of a run, in the order in which they are deleted
RUN_FILES = (
    "run.json", "history.jsonl", "state.safetensors", "model.safetensors", "initial.safetensors",
    "report.json", "logits.npz", "calibration.json", "splits.json", "curves.png", "report.html",
    "model.onnx", "model.onnx.json", "README.md",
)  # fmt: skip
# of a run, with what lamina explain and lamina inspect write there
RUN_FOLDERS = {
    "explanations": ("*-explained.png", "*-explained-*.png", "*-explained*.npz"),
    "inspection": ("layer-*.png", "probes.png"),
}
EXAMINED = 50  # entries of a folder


@dataclass(frozen=True)
class DataFolder:
    """The folder of the studio's data sets, and ``runs_dir`` for its runs."""

    path: Path
    runs_dir: Path

    def list_sources(self) -> list[dict[str, Any]]:
        """Name and source of what may be a data set here, of this folder, and of built-in sets.

        The page opens with the first one: a data set of the user, if some are easy to recognize.
        """
        children = self._list()
        folders = [path for path in children if path.is_dir()]
        files = [path for path in children if path.is_file()]
        tables = [path for path in files if is_table(path)]
        archives = [path for path in files if path.name.lower().endswith(ARCHIVES)]
        likely = [path for path in folders if _is_data(path)]
        likely += [path for path in archives if path not in tables]
        others = [path for path in (*folders, *tables) if path not in likely]
        drawn = [name for name in NAMES if name not in PUBLISHED]
        whole = (f"{self.path.name}, as a whole", str(self.path), False)
        sources = [(path.name, str(path), False) for path in likely]
        sources += [(name, name, True) for name in (*drawn, *PUBLISHED)]
        sources += [(path.name, str(path), False) for path in others]
        sources.insert(0 if self._is_data_set() else len(sources), whole)
        keys = ("name", "source", "is_built_in")
        return [dict(zip(keys, values, strict=True)) for values in sources]

    def check(self, source: str) -> str:
        """The source, if the studio may use it; ``DataError`` otherwise."""
        if source in NAMES:
            return source
        path = Path(source).resolve()
        if not (Path(source).is_absolute() and path.is_relative_to(self.path)):
            raise DataError(
                f"{source[:100]} is not in {self.path}, the folder that the studio may read. Choose"
                " a data set from the list, or start the studio with another folder."
            )
        return str(path)

    def find_corrections(self, source: str) -> Path:
        """The table of the labels that were corrected in the studio; it need not exist."""
        path = Path(self.check(source))
        beside = path.parent if source not in NAMES and path != self.path else self.runs_dir
        return beside / f"{path.name}{CORRECTIONS}"

    def find_corrected(self, source: str) -> Path | None:
        """The table of corrected labels, if there is one."""
        file = self.find_corrections(source)
        return file if file.exists() else None

    def correct(self, source: str, choices: Mapping[str, str] | None) -> dict[str, str]:
        """Add labels by image to the table of corrections; returns all corrections.

        ``exclude`` leaves out an image; an empty label removes its correction. ``None`` deletes the
        table.
        """
        file = self.find_corrections(source)
        if source not in NAMES and not Path(source).exists():
            raise DataError(f"There is no {source}. Choose a data set from the list.")
        return change_table(file, choices)

    def check_new(self, name: str) -> Path:
        """The folder for new data sets; ``DataError`` if ``name`` cannot be a data set here."""
        if self.path / name.strip() == self.runs_dir.resolve():
            raise DataError(f"{name} is the folder that contains the runs. Use another name.")
        if name.strip().casefold() in NAMES:
            raise DataError(f"{name} is a built-in data set. Use another name.")
        if self._is_data_set():
            reason = f"{self.path} is itself a data set, so {name} would become one of its classes"
            raise DataError(f"{reason}. Start the studio with another folder.")
        return self.path

    def has_run(self, name: str) -> bool:
        """Whether there is a run of this name, such as ``first`` or ``study/fold-1``."""
        parts = name.split("/")
        are_names = all(part and not part.startswith(".") for part in parts)
        is_below = len(parts) < 3 and are_names and "\\" not in name
        # Path.is_file raises for names that are too long
        return is_below and os.path.isfile(self.runs_dir / name / "run.json")  # noqa: PTH113

    def find_run(self, name: str) -> Path:
        """The folder of a run by its name; ``RunError`` if there is none."""
        if self.has_run(name):
            return self.runs_dir / name
        known = sorted(file.parent.name for file in self.runs_dir.glob("*/run.json"))
        remedy = suggest(name[:100], known) if known else "Train one."
        raise RunError(
            f"There is no run {name[:100]!r} in {self.runs_dir}; a new one appears after its first"
            f" epoch. {remedy}"
        )

    def delete_run(self, name: str) -> list[str]:
        """Delete what lamina wrote in the folder of a run, and the folder if it is empty.

        Returns the names of the other files. ``RunError`` if there is no such run, for a run of a
        study, a link, or a run that a process trains.
        """
        path = self.find_run(name)
        if path.resolve() != self.runs_dir.resolve() / name:
            raise RunError(f"{path} is a link. Delete the run in the folder that it links to.")
        if (path.parent / "study.json").exists():
            raise RunError(f"{name} is part of a study, which finds its runs by their names.")
        with lock_folder(path):
            for file in RUN_FILES:
                (path / file).unlink(missing_ok=True)
            for folder, patterns in RUN_FOLDERS.items():
                _delete_files(path / folder, patterns)
        (path / ".lock").unlink(missing_ok=True)  # on Windows, no file can be deleted that is open
        others = sorted(file.name for file in path.iterdir())
        if not others:
            path.rmdir()
        return others

    def _is_data_set(self) -> bool:
        """Whether the folder is a data set: all its folders are classes, or all are splits."""
        if (self.path / MARK).exists():
            return True
        folders = [path for path in self._list() if path.is_dir() and not _holds_runs(path)]
        are_classes = len(folders) > 1 and all(map(_has_image, folders))
        are_splits = len(find_splits(path.name for path in folders)) == len(folders)
        return are_classes or (are_splits and any(map(_has_classes, folders)))

    def _list(self) -> list[Path]:
        """The paths that may be data: not hidden, and neither the runs nor corrections."""
        try:
            paths = sorted(self.path.iterdir())
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"Cannot read {self.path}: {reason}. Start the studio with another folder."
            ) from error
        runs_dir = self.runs_dir.resolve()
        return [
            path
            for path in paths
            if path != runs_dir
            and not path.name.startswith(".")
            and not path.name.endswith(CORRECTIONS)
        ]


def check_is_here(source: str) -> None:
    """Raise ``DataError`` if the data set is not downloaded: only the user may decide to do so."""
    download_mb = find_download_mb(source)
    if download_mb:
        raise DataError(
            f"{source} is not on this machine yet ({download_mb} MB). Choose it under Images, and"
            " press Download."
        )


def change_table(file: Path, choices: Mapping[str, str] | None) -> dict[str, str]:
    """Add labels by image to a table that has no other columns; return all its corrections.

    An empty label removes a correction; ``None`` removes all. A table without corrections is
    deleted.
    """
    corrections: dict[str, str] = {}
    if file.exists() and read_rows(str(file), "labels_from")[:1] != [["image", "correct"]]:
        raise DataError(
            f"{file} has columns other than image and correct, so the studio did not create it."
            " Move it to another folder, then correct the labels again."
        )
    if file.exists() and choices is not None:
        corrections = dict(read_pairs(str(file), "labels_from", "correct", ADVICE))
    for image, label in (choices or {}).items():
        corrections[image.encode("utf-8", "backslashreplace").decode()] = label
    corrections = {image: label for image, label in corrections.items() if label}
    try:
        if corrections:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, format_rows([("image", "correct"), *corrections.items()]))
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"Cannot write {file}: {error.strerror or error}. Free some space, then try again."
        ) from None
    return corrections


def _delete_files(folder: Path, patterns: tuple[str, ...]) -> None:
    """Delete files of a folder by their names, and the folder if it is empty; follow no link."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # it contains other files
        folder.rmdir()


def _is_data(path: Path) -> bool:
    """Whether a folder has folders of images, or splits that have some."""
    splits = (child for child in _list_some(path) if find_splits([child.name]))
    return _has_classes(path) or any(map(_has_classes, splits))


def _has_classes(path: Path) -> bool:
    """Whether a folder has folders of images, which are neither runs nor studies."""
    return any(_has_image(child) and not _is_result(child) for child in _list_some(path))


def _has_image(path: Path) -> bool:
    return any(child.name.lower().endswith(SUFFIXES) for child in _list_some(path))


def _holds_runs(path: Path) -> bool:
    """Whether a folder is a run or a study, or contains one."""
    return any(map(_is_result, (path, *_list_some(path))))


def _is_result(path: Path) -> bool:
    return any(all((path / name).exists() for name in names) for names in RESULTS)


def _list_some(path: Path) -> list[Path]:
    """Some entries of a folder; none for a file or an unreadable folder."""
    try:
        with os.scandir(path) as entries:
            return [Path(entry) for entry in islice(entries, EXAMINED)]
    except OSError:
        return []
