"""The data sets of the studio: the built-in sets, and all sets in the folder of the command."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.data import NAMES
from lamina.data.corrections import ADVICE, format_rows
from lamina.data.option_files import read_pairs, read_rows
from lamina.data.sources.published import PUBLISHED, find_download_mb
from lamina.data.sources.table_files import is_table
from lamina.data.splits import find_splits
from lamina.deploy.studio.recognition import has_classes, has_image, holds_runs, is_data
from lamina.errors import DataError
from lamina.files import write_atomically

# file in each set that is made on the page; the studio changes no other folders
MARK = ".made-by-lamina-studio"
# end of the name of a table of corrected labels, beside the data set
CORRECTIONS = "-corrections.csv"
# among the runs: the deleted runs, until the studio ends
DELETED = ".deleted"


@dataclass(frozen=True)
class DataFolder:
    """The folder of the studio's data sets, without folders of runs, such as ``runs_dir``."""

    path: Path
    runs_dir: Path

    def list_sources(self) -> list[dict[str, Any]]:
        """Name and source of each data set or of the folder, of built-in sets, and of tables."""
        children = self._list()
        folders = [path for path in children if path.is_dir()]
        data = [path for path in children if is_data(path)]
        tables = [path for path in children if path.is_file() and is_table(path)]
        if self._is_data_set(folders):
            data = [self.path]
            tables = []
        elif sum(has_image(path) for path in folders if path not in data) > 1:
            # some of its folders may be classes
            data.append(self.path)
        drawn = [name for name in NAMES if name not in PUBLISHED]
        sources = [(path.name, str(path), False) for path in data]
        sources += [(name, name, True) for name in (*drawn, *PUBLISHED)]
        sources += [(path.name, str(path), False) for path in tables]
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

    def describe(self, source: str, size_px: int | None, val: str) -> tuple[Any, ...]:
        """The arguments with which ``load_source`` loads a data set, with corrected labels."""
        return self.check(source), size_px, val, str(self.find_corrected(source) or "")

    def correct(self, source: str, choices: Mapping[str, str] | None) -> dict[str, str]:
        """Add labels by image to the table of corrections; returns all corrections.

        ``exclude`` leaves out an image; an empty label removes its correction. ``None`` deletes the
        table.
        """
        file = self.find_corrections(source)
        if source not in NAMES and not Path(source).exists():
            raise DataError(f"There is no {source}. Choose a data set from the list.")
        return change_table(file, choices)

    def remove_deleted(self) -> None:
        """Remove the runs that were deleted on the page."""
        shutil.rmtree(self.runs_dir / DELETED, ignore_errors=True)

    def check_new(self, name: str) -> Path:
        """The folder for new data sets; ``DataError`` if ``name`` cannot be a data set here."""
        if self.path / name.strip() == self.runs_dir.resolve():
            raise DataError(f"{name} is the folder that contains the runs. Use another name.")
        if name.strip().casefold() in NAMES:
            raise DataError(f"{name} is a built-in data set. Use another name.")
        if self._is_data_set([path for path in self._list() if path.is_dir()]):
            reason = f"{self.path} is itself a data set, so {name} would become one of its classes"
            raise DataError(f"{reason}. Start the studio with another folder.")
        return self.path

    def _is_data_set(self, folders: list[Path]) -> bool:
        """Whether the folder is a data set: all its folders are classes, or all are splits."""
        if (self.path / MARK).exists():
            return True
        are_classes = len(folders) > 1 and all(map(has_image, folders))
        are_splits = len(find_splits(path.name for path in folders)) == len(folders)
        return are_classes or (are_splits and any(map(has_classes, folders)))

    def _list(self) -> list[Path]:
        """The paths that may be data: not hidden, and neither runs nor corrections."""
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
            if not (path.name.startswith(".") or path.name.endswith(CORRECTIONS))
            and not (path == runs_dir or holds_runs(path))
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
