"""The columns of one table's file, CSV, TSV, JSON lines or Parquet, as polars reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lamina.data.sources.folder import is_picture_path
from lamina.errors import DataError

Kind = Literal["text", "number", "truth", "list", "bytes", "other"]

# A table of text is read whole. Of one that is larger lamina would need several times this memory.
TEXT_LIMIT_BYTES = 2 * 2**30
# What other programs write where a number is missing.
MISSING = ("NA", "N/A", "nan", "NaN", "null", "None")


@dataclass(frozen=True)
class TableFile:
    """A table whose columns are known; their values are read when they are asked for.

    Attributes:
        path: the file.
        kinds: of each column, what its values are; ``bytes`` are encoded pictures.
        class_names: of the columns whose numbers stand for classes, what these are called.
        rows: how many there are.
        frame: the values, of a table that is read whole.
    """

    path: Path
    kinds: Mapping[str, Kind]
    class_names: Mapping[str, tuple[str, ...]]
    rows: int
    frame: pl.DataFrame | None

    def read(self, column: str) -> list[Any]:
        """The values of a column; ``None`` where there is none, or where it is no number."""
        with readable(self.path):
            frame = pl.read_parquet(self.path, columns=[column], glob=False) if self.frame is None else self.frame
            values = frame[column]
            if values.dtype.is_decimal():
                values = values.cast(pl.Float64)
            names = self.class_names.get(column)
            plain: list[Any] = values.to_list()
        if names is not None:
            return [_name(value, names, column, self.path) for value in plain]
        return [_plain(value) for value in plain]

    def describe(self) -> str:
        """The columns and their kinds, for a message."""
        return ", ".join(f"{column} ({kind})" for column, kind in self.kinds.items())


def open_table(path: Path) -> TableFile:
    """Read the columns of a table, by the ending of its name.

    Raises:
        DataError: it is damaged, of another encoding than UTF-8, or has no rows, no header or two columns of one name.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        table = _open_parquet(path)
    else:
        data = _read_text(path)
        is_json = name.endswith((".jsonl", ".ndjson"))
        frame = _parse_json(data, path) if is_json else _parse_csv(data, path, is_tabbed=name.endswith(".tsv"))
        table = TableFile(path, _kinds(frame.schema), {}, frame.height, frame)
    if not table.rows:
        raise DataError(f"{path} has no rows. Expected one for each picture.")
    return table


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say plainly that a table is damaged, whatever its reader raises."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0].rstrip(".")
        raise DataError(f"{path} can't be read as a table: {reason}. Make or download it again.") from error


def _open_parquet(path: Path) -> TableFile:
    with readable(path):
        schema = pl.read_parquet_schema(path)
        metadata = pl.read_parquet_metadata(path)
        rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return TableFile(path, _kinds(schema), _class_names(metadata.get("huggingface")), rows, None)


def _class_names(text: str | None) -> dict[str, tuple[str, ...]]:
    """The names of classes that Hugging Face's ``datasets`` writes into the metadata of Parquet."""
    try:
        features = json.loads(text or "{}")["info"]["features"]
        found = {column: _find_names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if names}


def _find_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ``ClassLabel``, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:
        return _find_names(feature[0])
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list) and len(set(map(str, names))) == len(names):
        return tuple(map(str, names))
    return _find_names(feature.get("feature"))


def _kinds(schema: Mapping[str, Any]) -> dict[str, Kind]:
    return {column: _kind(dtype) for column, dtype in schema.items()}


def _kind(dtype: Any) -> Kind:  # polars' own DataType is a type hint that beartype can't check
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Boolean:
        return "truth"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, pl.List | pl.Array) and (dtype.inner == pl.String or dtype.inner.is_integer()):
        return "list"
    fields = dict(dtype) if isinstance(dtype, pl.Struct) else {}
    return "bytes" if pl.Binary in (dtype, fields.get("bytes")) else "other"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [str(item) for item in value if item is not None]
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _name(value: Any, names: Sequence[str], column: str, path: Path) -> Any:
    """What a number stands for; -1 is how Hugging Face's sets write that a class is not told."""
    if isinstance(value, list):
        return [_name(item, names, column, path) for item in value if item not in (None, -1)]
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    raise DataError(
        f"column {column!r} of {path} has the value {value!r}, and the file names {len(names)} classes, 0 to "
        f"{len(names) - 1}. Make the table again."
    )


def _read_text(path: Path) -> bytes:
    """The bytes of a table of text, unpacked, and known to be UTF-8."""
    with readable(path), gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        data = file.read(TEXT_LIMIT_BYTES + 1)
    if len(data) > TEXT_LIMIT_BYTES:
        raise DataError(f"{path} holds more than {TEXT_LIMIT_BYTES // 2**30} GiB of text. Convert it to Parquet.")
    remedy = "Save it as UTF-8, which Excel calls 'CSV UTF-8', or convert it with iconv."
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16, and tables are read as UTF-8. {remedy}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}. {remedy}") from None
    return data


def _parse_json(data: bytes, path: Path) -> pl.DataFrame:
    if not data.strip():
        raise DataError(f"{path} has no rows. Expected one for each picture.")
    with readable(path):
        return pl.read_ndjson(data, infer_schema_length=None)


def _parse_csv(data: bytes, path: Path, is_tabbed: bool) -> pl.DataFrame:
    text = data.decode("utf-8-sig")
    first_line = text.lstrip("\r\n").partition("\n")[0]
    separator = "\t" if is_tabbed else next((mark for mark in ",;\t" if mark in first_line), ",")
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    with _csv_errors(path):
        header = [name.strip() for name in next((record for record in records if record), [])]
    if not header:
        raise DataError(f"{path} is empty. Expected a row with the names of the columns, then one for each picture.")
    _check_header(header, path)
    try:
        # Text first: whether a column holds numbers is found below, in all of its values.
        frame = pl.read_csv(data, separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError:
        with _csv_errors(path):
            for record in records:
                if len(record) > len(header):
                    raise DataError(
                        f"{path} has {len(record)} fields in line {records.line_num}, and its first row names "
                        f"{len(header)} columns. Put a text that holds {separator!r} between double quotes."
                    ) from None
        with readable(path):
            raise
    with readable(path):
        frame.columns = header
    frame = frame.select(pl.all().str.strip_chars().replace("", None))
    return frame.filter(~pl.all_horizontal(pl.all().is_null())).select(_find_numbers(values) for values in frame)


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(f"{path} can't be read as a table: {error}. Make or download it again.") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    if data_like := next((name for name in header if is_picture_path(name.replace("\\", "/"))), None):
        raise DataError(
            f"the first row of {path} looks like a picture's ({data_like!r}); a table begins with the names of its "
            "columns. Put such a row before it, as image,label."
        )
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{path} has more than one column named {twice[0]!r}. Give each a name of its own.")


def _find_numbers(values: pl.Series) -> pl.Series:
    """A column of text as truth values or numbers, if all of it are some."""
    given = values.replace(MISSING, [None] * len(MISSING))
    if given.null_count() == len(given):
        return values
    if given.str.to_lowercase().is_in(["true", "false"]).all():
        return given.str.to_lowercase() == "true"
    # 007 is the name of something.
    if not given.str.contains(r"^[+-]?0\d").any():
        for dtype in (pl.Int64, pl.Float64):
            numbers = given.cast(dtype, strict=False)
            if numbers.null_count() == given.null_count():
                return numbers
    return values
