"""Seconds from images to ready uint8 arrays: lamina beside torchvision's ImageFolder and Hugging Face's datasets.

Everybody reads the same images in a process of its own, with nothing prepared: lamina with an empty cache, datasets
with an empty one, and torchvision, which keeps none, as in every epoch of a training. What is timed begins after the
imports and ends when all splits lie in memory, or are mapped into it, as uint8. The files were just written, so that
nobody waits for the disk. lamina is also timed a second time, when its cache is there.

    python -m venv /tmp/sources && /tmp/sources/bin/pip install -r benchmarks/sources-requirements.txt
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

# What lamina does, once with an empty cache and once more.
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
    """The same images as lamina and as the others read them; ``size_px`` of None leaves them as they are."""

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
    predicted = json.loads(run_process(command, {"LAMINA_CACHE": str(cache)}).lines[-1])
    for who, seconds in zip(("lamina", "lamina, again"), predicted["seconds"], strict=True):
        yield Row(who, source.name, seconds, predicted["images"])


def read_with_peer(who: str, python: Path, source: Source, cache: Path) -> Row:
    command = [str(python), str(ARRAYS), who, str(source.peers_path), str(source.size_px or 0), str(cache)]
    finished = run_process(command, {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    predicted = json.loads(finished.lines[-1])
    return Row(who, source.name, predicted["seconds"], predicted["images"])


def write_parquet(folder: Path, path: Path) -> Path:
    """The images of a folder's train part as a table in the layout of Hugging Face."""
    import polars

    files = sorted((folder / "train").glob("*/*.jpg"))
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    polars.DataFrame({"image": images, "label": [file.parent.name for file in files]}).write_parquet(path)
    return path


def prepare_sources(zip_path: Path | None, images: int, sizes_px: Sequence[int], folder: Path) -> list[Source]:
    sources = []
    if zip_path is not None:
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(folder / "unpacked")
        sources.append(Source(f"{zip_path.name}, as they are", zip_path, folder / "unpacked", None))
    photographs = draw_folder(folder / "photographs", images)
    table = write_parquet(photographs, folder / "photographs.parquet")
    for size_px in sizes_px:
        sources.append(Source(f"{images} photographs to {size_px} px", photographs, photographs, size_px))
        sources.append(Source(f"train part as Parquet to {size_px} px", table, table, size_px))
    return sources


def compare(rows: Sequence[Row]) -> Table:
    """Medians over the turns, and how many times lamina's first reading each one's takes."""
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
    """Read the same images by lamina and by others, in turns.

    Args:
        zip_path: a zip of train/ and test/ with class folders of small images; without it photographs alone.
        python: interpreter that has the others, see benchmarks/sources-requirements.txt.
        images: how many photographs of 500×375 to draw.
        sizes_px: sides of the squares that they become.
        turns: how often everybody reads each source.
        json_path: where to write every row, one JSON object a line.
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
        # In turns, so that a slow minute of the machine meets everybody.
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
                            absent[f"{source.name}: {who}"] = f"failed with status {error.returncode}, see above"
    Console().print(compare(rows))
    for what, reason in absent.items():
        print(f"{what}: {reason}")


if __name__ == "__main__":
    tyro.cli(main)
