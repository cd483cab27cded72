"""The memory that reading a data set takes does not grow with the data set."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from support import forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")

MEASURE_TABLE = """
import resource, sys
from pathlib import Path
from lamina.data.sources.parquet import spool_images
from lamina.data.preparation import Preparation
from lamina.data.sources.rows import scan_table
from lamina.data.sources.table_files import find_parts
def scan(path):
    return scan_table(path, *find_parts(path), Preparation())
files, _ = scan(Path("warm.parquet"))
spool_images(files, Path("."))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files, _ = scan(Path("large.parquet"))
scanned = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spool_images(files, Path("."))
print(scanned - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Of 160 MB of images the scan holds none, and the spooling a few at a time."""
    random = np.random.default_rng(0)
    for name, rows in (("warm", 200), ("large", 3200)):
        write = pl.DataFrame(
            {"image": [random.bytes(50_000) for _ in range(rows)], "label": list(range(rows))}
        )
        write.write_parquet(
            tmp_path / f"{name}.parquet", row_group_size=100, compression="uncompressed"
        )
    done = forking.run(code=MEASURE_TABLE, cwd=tmp_path)
    scan_kib, spool_kib = map(int, done.stdout.split())
    assert (tmp_path / "spool").stat().st_size == 160_000_000
    assert scan_kib < 20_000
    assert spool_kib < 100_000
