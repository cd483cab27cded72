"""The memory that reading a data set takes does not grow with the data set."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from support import forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")

MEASURE_TABLE = """
import resource, sys
from pathlib import Path
from lamina.data.sources.parquet import spool_table
from lamina.data.preparation import Preparation
from lamina.data.sources.rows import scan_table
from lamina.data.sources.table import find_parts
def scan(path):
    return scan_table(path, *find_parts(path), Preparation())
files, _, column = scan(Path("warm.parquet"))
spool_table(files.frame, column, Path("."))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files, _, column = scan(Path("large.parquet"))
scanned = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spool_table(files.frame, column, Path("."))
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


MEASURE_ARRAYS = """
import resource, sys
from lamina.data import load_data
load_data(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = load_data(sys.argv[2])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(sum(map(len, data.splits.values())), grown)
"""


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_memory_does_not_grow_with_an_npz(method: int, tmp_path: Path) -> None:
    """60 MB of images are read in blocks: the peak is a fraction of them."""
    count = 600
    block = (np.random.default_rng(0).random((100, 182, 182, 3)) * 255).astype(np.uint8)
    for name, repeats in (("warm", 1), ("large", count // 100)):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", method) as archive:
            with archive.open("x.npy", "w", force_zip64=True) as file:
                shape = (100 * repeats, *block.shape[1:])
                np.lib.format.write_array_header_1_0(
                    file, {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                )
                for number in range(repeats):
                    block[:, 0, 0, 0] = number % 256
                    file.write(block.data)
            targets = io.BytesIO()
            np.save(targets, np.arange(100 * repeats) % 10)
            archive.writestr("y.npy", targets.getvalue())
    done = forking.run("warm.npz", "large.npz", code=MEASURE_ARRAYS, cwd=tmp_path)
    images, growth_kib = map(int, done.stdout.split())
    assert images == count
    assert growth_kib < 30_000
