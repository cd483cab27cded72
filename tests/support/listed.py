"""The files that a source lists, as plain lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lamina.data import Problem
from lamina.data.decoding import read_file
from lamina.data.sources.frames import list_problems
from lamina.data.sources.interface import Files


class Listing(NamedTuple):
    """Where an image is."""

    name: str
    file: str
    offset_bytes: int | None
    size_bytes: int | None

    def read(self) -> bytes:
        return read_file(Path(self.file), self.offset_bytes, self.size_bytes)


class Listed:
    """The images that are used, in order, with their splits and labels, and those left out."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.label_reason, self.target_names = files.label_reason, files.target_names
        self._used = files.frame.filter(pl.col("reason").is_null())

    @property
    def images(self) -> list[Listing]:
        columns = self._used["name", "file", "offset_bytes", "size_bytes"]
        return [Listing(name, os.fsdecode(file), *span) for name, file, *span in columns.rows()]

    @property
    def splits(self) -> list[str | None]:
        return self._used["split"].to_list()

    @property
    def labels(self) -> dict[str, list]:
        return {name: values.to_list() for name, values in self.files.labels.items()}

    @property
    def problems(self) -> list[Problem]:
        return list(list_problems(self.files.frame))
