"""Functions on the frame of a source's images (see ``Files``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.data.images import Problem
from lamina.data.sources.interface import show_name

COLUMNS: dict[str, Any] = {
    "name": pl.String,
    "file": pl.Binary,
    "offset_bytes": pl.Int64,
    "size_bytes": pl.Int64,
    "split": pl.String,
    "group": pl.String,
    "reason": pl.String,
}


def add_problems(frame: pl.DataFrame, problems: Sequence[Problem]) -> pl.DataFrame:
    """The frame with a row for each problem before its other rows."""
    left_out = {
        "name": [show_name(problem.path) for problem in problems],
        "reason": [show_name(problem.reason) for problem in problems],
    }
    schema = dict.fromkeys(left_out, pl.String)
    rows = pl.DataFrame(left_out, schema=schema)
    return pl.concat([pl.DataFrame(schema=COLUMNS), rows, frame], how="diagonal")


def leave_out_gaps(frame: pl.DataFrame, name: str, column: str) -> pl.DataFrame:
    """Leave out images without a value in ``name`` of the frame, which is ``column`` of a table."""
    gap = pl.when(pl.col(name).is_null()).then(pl.lit(f"no value in column {column!r}"))
    return frame.with_columns(reason=pl.coalesce("reason", gap))


def clean_column(values: pl.Series) -> pl.Series:
    """A column with null for NaN and empty text, and lists of text without nulls."""
    if isinstance(values.dtype, pl.List | pl.Array):
        texts = values.cast(pl.List(pl.String))
        return texts.list.drop_nulls()
    if values.dtype.is_decimal():
        return values.cast(pl.Float64)
    if values.dtype.is_float():
        return values.fill_nan(None)
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        return values.cast(pl.String).replace("", None)
    return values


def list_problems(frame: pl.DataFrame) -> tuple[Problem, ...]:
    """The images of a frame that are left out."""
    left_out = frame.filter(pl.col("reason").is_not_null())
    return tuple(Problem(name, reason) for name, reason in left_out["name", "reason"].rows())
