"""Seconds to load images as uint8 arrays: lamina, torchvision's ImageFolder and datasets.

Each reads the same images in its own process, without a cache: lamina and datasets with an empty
one; torchvision has none, so its time recurs in every epoch. The clock starts after the imports and
stops when all splits are in memory, or mapped into it, as uint8. The files were just written, so
nobody waits for the disk. lamina is also timed a second time, with its cache.

    python -m venv /tmp/sources
    /tmp/sources/bin/pip install -r benchmarks/sources-requirements.txt
    python benchmarks/sources.py --python /tmp/sources/bin/python --zip cifar10-images.zip --turns 3
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from photographs import draw_folder
from processes import append_row, run_process
from rich.console import Console
from rich.table import Table

ARRAYS = Path(__file__).parent / "peer" / "arrays.py"
PEERS = ("torchvision-0", "torchvision-2", "datasets")

# Reads with lamina, once with an empty cache and once from it.
LAMINA = """
import json, sys, time
from lamina import load_data
from lamina.data import Preparation
seconds = []
for _ in range(2):
    start = time.perf_counter()
    data = load_data(sys.argv[1], Preparation(size_px=int(sys.argv[2]) or None))
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds, "images": sum(map(len, data.splits.values()))}))
"""


@dataclasses.dataclass(frozen=True)
class Source:
    """The same images for lamina and for the others; ``size_px`` of None keeps their size."""

    name: str
    path: Path
    peers_path: Path
    size_px: int | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One reading of one source."""

    who: str
    source: str
    seconds: float
    images: int


def read_with_lamina(source: Source, cache: Path) -> Iterator[Row]:
    command = [sys.executable, "-c", LAMINA, str(source.path), str(source.size_px or 0)]
    result = json.loads(run_process(command, {"LAMINA_CACHE": str(cache)}).lines[-1])
    for who, seconds in zip(("lamina", "lamina, again"), result["seconds"], strict=True):
        yield Row(who, source.name, seconds, result["images"])


def read_with_peer(who: str, python: Path, source: Source, cache: Path) -> Row:
    command = [
        str(python),
        str(ARRAYS),
        who,
        str(source.peers_path),
        str(source.size_px or 0),
        str(cache),
    ]
    finished = run_process(
        command, {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    )
    result = json.loads(finished.lines[-1])
    return Row(who, source.name, result["seconds"], result["images"])


def write_parquet(folder: Path, path: Path) -> Path:
    """Write the training images as a table in Hugging Face's layout."""
    import polars

    files = sorted((folder / "train").glob("*/*.jpg"))
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    polars.DataFrame(
        {"image": images, "label": [file.parent.name for file in files]}
    ).write_parquet(path)
    return path


def prepare_sources(
    zip_path: Path | None, images: int, sizes_px: Sequence[int], folder: Path
) -> list[Source]:
    sources = []
    if zip_path is not None:
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(folder / "unpacked")
        sources.append(
            Source(f"{zip_path.name}, original size", zip_path, folder / "unpacked", None)
        )
    photographs = draw_folder(folder / "photographs", images)
    table = write_parquet(photographs, folder / "photographs.parquet")
    for size_px in sizes_px:
        sources.append(
            Source(f"{images} drawn photographs to {size_px} px", photographs, photographs, size_px)
        )
        sources.append(Source(f"train part as Parquet to {size_px} px", table, table, size_px))
    return sources


def compare(rows: Sequence[Row]) -> Table:
    """Tabulate medians over the turns, and their ratio to lamina's first reading."""
    table = Table("source", "who", "images")
    for head in ("seconds", "÷ lamina"):
        table.add_column(head, justify="right")
    for source in dict.fromkeys(row.source for row in rows):
        found = [row for row in rows if row.source == source]
        medians = {
            who: statistics.median(row.seconds for row in found if row.who == who)
            for who in dict.fromkeys(row.who for row in found)
        }
        for who, seconds in sorted(medians.items(), key=lambda item: item[1]):
            ratio = f"{seconds / medians['lamina']:.2f}" if "lamina" in medians else "–"
            table.add_row(source, who, str(found[0].images), f"{seconds:.2f}", ratio)
        table.add_section()
    return table


def main(
    zip_path: Annotated[Path | None, tyro.conf.arg(name="zip")] = None,
    python: Path = Path(sys.executable),
    images: int = 10_000,
    sizes_px: tuple[int, ...] = (64, 224),
    turns: int = 3,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Read the same images with lamina and with other libraries, in turns.

    Args:
        zip_path: zip of small images in class folders of train/ and test/; by default only drawn
            photographs are read.
        python: Python with the other libraries, see benchmarks/sources-requirements.txt.
        images: number of photographs of 500×375 px to draw.
        sizes_px: sizes of the squares to resize them to.
        turns: number of times that each library reads each source.
        json_path: file for the results, one JSON object per line.
    """
    rows: list[Row] = []
    absent: dict[str, str] = {}

    def keep(row: Row) -> None:
        rows.append(row)
        print(f"{row.source}: {row.who} {row.seconds:.2f} s", file=sys.stderr)
        if json_path is not None:
            append_row(json_path, row)

    if json_path is not None:
        json_path.write_text("")
    with tempfile.TemporaryDirectory() as folder_name:
        sources = prepare_sources(zip_path, images, sizes_px, Path(folder_name))
        # In turns, so that a slow minute of the machine affects every library.
        for _ in range(turns):
            for source in sources:
                for who in ("lamina", *PEERS):
                    if f"{source.name}: {who}" in absent or (
                        who.startswith("torchvision") and source.path.suffix == ".parquet"
                    ):
                        continue
                    with tempfile.TemporaryDirectory() as cache:
                        try:
                            if who == "lamina":
                                for row in read_with_lamina(source, Path(cache)):
                                    keep(row)
                            else:
                                keep(read_with_peer(who, python, source, Path(cache)))
                        except subprocess.CalledProcessError as error:
                            absent[f"{source.name}: {who}"] = (
                                f"failed with exit status {error.returncode}; its output is above"
                            )
    Console().print(compare(rows))
    for what, reason in absent.items():
        print(f"{what}: {reason}")


if __name__ == "__main__":
    tyro.cli(main)
