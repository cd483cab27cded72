"""The files that a source lists, as plain lists."""

from __future__ import annotations

import polars as pl

from lamina.data import Problem
from lamina.data.decoding import EncodedImage
from lamina.data.sources.frames import list_encoded, list_problems
from lamina.data.sources.listing import Files


class Listed:
    """The images that are used, in order, with their splits and labels, and those left out."""

    def __init__(self, files: Files, encoded: str | None = None) -> None:
        self.files, self.encoded = files, encoded
        self.label_reason, self.target_names = files.label_reason, files.target_names
        self._used = files.frame.filter(pl.col("reason").is_null())

    @property
    def images(self) -> list[EncodedImage]:
        return list_encoded(self._used)

    @property
    def splits(self) -> list[str | None]:
        return self._used["split"].to_list()

    @property
    def labels(self) -> dict[str, list]:
        return {name: values.to_list() for name, values in self.files.labels.columns.items()}

    @property
    def problems(self) -> list[Problem]:
        return list(list_problems(self.files.frame))
