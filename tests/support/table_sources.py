"""The same small set of images as tables and arrays of every layout that lamina takes.

Each ``write_*`` takes the images of ``image_sources`` and an empty folder, and gives the path to
load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from lamina.data import Preparation, Problem
from lamina.data.load import SOURCE_KINDS
from lamina.data.sources import rows, table_files
from lamina.data.sources.interface import Arrays, TablePart
from lamina.data.sources.parquet import spool_images
from lamina.data.sources.scan import scan_folder
from support.image_sources import ImageSet
from support.listed import Listed


def find_parts(path: Path) -> tuple[list[TablePart], list[Problem]]:
    parts, problems = table_files.find_parts(path)
    return (parts, problems) if parts else table_files.find_parquet(scan_folder(path))


def scan_table(path: Path, preparation: Preparation) -> Listed:
    files, _ = rows.scan_table(path, *find_parts(path), preparation)
    return Listed(files)


def spool(listed: Listed, folder: Path) -> Listed:
    return Listed(spool_images(listed.files, folder))


def state_of_table(path: Path, preparation: Preparation) -> str:
    _, state = rows.scan_table(path, *find_parts(path), preparation)
    return state


def scan_text(
    folder: Path,
    text: str | bytes,
    name: str = "pets.csv",
    preparation: Preparation = Preparation(),
) -> Listed:
    """Scan a table beside the images 1.png to 9.png."""
    for number in range(1, 10):
        (folder / f"{number}.png").write_bytes(b"image")
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return scan_table(folder / name, preparation)


CLASSES = ("cat", "dog", "owl")

Writer = Callable[[ImageSet, Path], Path]


def rows_of(image_set: ImageSet) -> list[dict[str, str]]:
    """A row for each image: its path, its class, its split."""
    rows = []
    for path in image_set.pixels:
        split, name, _ = path.split("/")
        rows.append({"path": path, "label": name, "split": split})
    return rows


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def csv_text(rows: Sequence[dict[str, object]], separator: str = ",") -> str:
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    return "\n".join(lines) + "\n"


def json_lines(rows: Sequence[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_csv(
    image_set: ImageSet, root: Path, name: str = "pets.csv", separator: str = ","
) -> Path:
    """Paths, labels and splits, beside the images."""
    image_set.write_folder(root)
    return write_text(root / name, csv_text(rows_of(image_set), separator))


def write_json_lines(image_set: ImageSet, root: Path) -> Path:
    image_set.write_folder(root)
    return write_text(root / "pets.jsonl", json_lines(rows_of(image_set)))


def write_parquet_of_paths(image_set: ImageSet, root: Path) -> Path:
    image_set.write_folder(root)
    pl.DataFrame(rows_of(image_set)).write_parquet(root / "pets.parquet")
    return root / "pets.parquet"


def write_metadata(image_set: ImageSet, root: Path, kind: str = "csv") -> Path:
    """A table with ``file_name`` for all images, whose paths give the splits."""
    image_set.write_folder(root)
    rows = [{"file_name": row["path"], "label": row["label"]} for row in rows_of(image_set)]
    write_metadata_file(root, rows, kind)
    return root


def write_metadata_by_split(image_set: ImageSet, root: Path, kind: str = "jsonl") -> Path:
    """A table with ``file_name`` in each split's folder."""
    image_set.write_folder(root)
    for split in {row["split"] for row in rows_of(image_set)}:
        chosen = [row for row in rows_of(image_set) if row["split"] == split]
        rows = [
            {"file_name": row["path"].removeprefix(f"{split}/"), "label": row["label"]}
            for row in chosen
        ]
        write_metadata_file(root / split, rows, kind)
    return root


def write_metadata_file(folder: Path, rows: Sequence[dict[str, object]], kind: str) -> None:
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(folder / "metadata.parquet")
    else:
        write_text(
            folder / f"metadata.{kind}", csv_text(rows) if kind == "csv" else json_lines(rows)
        )


def features(names: Sequence[str] = CLASSES) -> dict[str, str]:
    """What Hugging Face's ``datasets`` writes into the metadata of Parquet."""
    stored = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": stored}})}


def encoded_frame(
    image_set: ImageSet, splits: Sequence[str] = ("train", "val", "test")
) -> pl.DataFrame:
    """Images and numbers of classes as Hugging Face has them, with the split in a column."""
    chosen = [row for row in rows_of(image_set) if row["split"] in splits]
    images = [
        {"bytes": image_set.encoded[row["path"]], "path": row["path"].replace("/", "-")}
        for row in chosen
    ]
    labels = [CLASSES.index(row["label"]) for row in chosen]
    return pl.DataFrame(
        {"image": images, "label": labels, "split": [row["split"] for row in chosen]}
    )


def write_encoded_parquet(image_set: ImageSet, root: Path) -> Path:
    """One file with the splits in a column."""
    encoded_frame(image_set).write_parquet(
        root / "pets.parquet", row_group_size=4, metadata=features()
    )
    return root / "pets.parquet"


def write_bytes_parquet(image_set: ImageSet, root: Path) -> Path:
    """The images' bytes in a plain column, and classes by name."""
    rows = rows_of(image_set)
    images = [image_set.encoded[row["path"]] for row in rows]
    frame = pl.DataFrame({"image": images}).hstack(pl.DataFrame(rows).select("label", "split"))
    frame.write_parquet(root / "pets.parquet")
    return root / "pets.parquet"


def write_shards(image_set: ImageSet, root: Path, under: str = "data") -> Path:
    """Two files for the training images and one for each other split, as on Hugging Face."""
    (root / under).mkdir(parents=True, exist_ok=True)
    for split, name, count in (
        ("train", "train", 2),
        ("val", "validation", 1),
        ("test", "test", 1),
    ):
        frame = encoded_frame(image_set, [split]).drop("split")
        each = -(-len(frame) // count)
        for number in range(count):
            shard = frame.slice(number * each, each)
            path = root / under / f"{name}-{number:05d}-of-{count:05d}.parquet"
            shard.write_parquet(path, row_group_size=3, metadata=features())
    return root


def write_split_folders(image_set: ImageSet, root: Path, under: str = "") -> Path:
    """A folder for each split, with numbered files, as the hub converts every set."""
    for split, name, count in (
        ("train", "train", 2),
        ("val", "validation", 1),
        ("test", "test", 1),
    ):
        (root / under / name).mkdir(parents=True)
        frame = encoded_frame(image_set, [split]).drop("split")
        each = -(-len(frame) // count)
        for number in range(count):
            frame.slice(number * each, each).write_parquet(
                root / under / name / f"{number:04d}.parquet", metadata=features()
            )
    return root


def write_part_files(image_set: ImageSet, root: Path) -> Path:
    """One table in two files, with the splits in a column, as Spark writes it."""
    frame = encoded_frame(image_set)
    for number, part in enumerate((frame[:10], frame[10:])):
        part.write_parquet(root / f"part-{number}.parquet", metadata=features())
    (root / "_SUCCESS").touch()
    (root / ".part-0.parquet.crc").touch()
    return root


TABLE_SOURCES: dict[str, Writer] = {
    "csv": write_csv,
    "csv with semicolons": lambda image_set, root: write_csv(image_set, root, separator=";"),
    "tsv": lambda image_set, root: write_csv(image_set, root, "pets.tsv", "\t"),
    "json lines": write_json_lines,
    "parquet of paths": write_parquet_of_paths,
    "metadata.csv": write_metadata,
    "metadata.parquet": lambda image_set, root: write_metadata(image_set, root, "parquet"),
    "metadata.csv by split": lambda image_set, root: write_metadata_by_split(
        image_set, root, "csv"
    ),
    "metadata.jsonl by split": write_metadata_by_split,
    "parquet of bytes": write_bytes_parquet,
    "hugging face parquet": write_encoded_parquet,
    "hugging face shards": write_shards,
    "hugging face shards of a config": lambda image_set, root: write_shards(
        image_set, root, "plain_text"
    ),
    "hugging face folders of splits": write_split_folders,
    "hugging face folders of splits of a config": lambda image_set, root: write_split_folders(
        image_set, root, "default"
    ),
    "hugging face columns in part files": write_part_files,
}


def arrays_of(image_set: ImageSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and the numbers of the classes of a split."""
    pixels, targets, _ = image_set.select(split)
    return pixels, targets


def write_keras_npz(image_set: ImageSet, root: Path) -> Path:
    """``x_train``, ``y_train`` and so on, as Keras has them."""
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = arrays_of(image_set, split)
    np.savez(root / "pets.npz", **arrays, class_names=np.array(CLASSES))
    return root / "pets.npz"


def write_medmnist_npz(image_set: ImageSet, root: Path) -> Path:
    """``train_images``, ``train_labels`` (N, 1) and so on, as MedMNIST has them."""
    arrays = {}
    for split in ("train", "val", "test"):
        pixels, targets = arrays_of(image_set, split)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = (
            pixels,
            targets.astype(np.uint8)[:, None],
        )
    np.savez_compressed(root / "pets.npz", **arrays, class_names=np.array(CLASSES))
    return root / "pets.npz"


def write_named_npz(image_set: ImageSet, root: Path) -> Path:
    """The names of classes as targets."""
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"], targets = arrays_of(image_set, split)
        arrays[f"{split}_labels"] = np.array(CLASSES)[targets]
    np.savez(root / "pets.npz", **arrays)
    return root / "pets.npz"


ARRAY_SOURCES: dict[str, Writer] = {
    "npz of keras": write_keras_npz,
    "npz of medmnist": write_medmnist_npz,
    "npz of names": write_named_npz,
}


def idx_bytes(values: np.ndarray) -> bytes:
    """An array as MNIST's files hold it: a magic number, the sizes, the bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(
        size.to_bytes(4, "big") for size in values.shape
    )
    return header + values.astype(np.uint8).tobytes()


@dataclass
class Read:
    """The listing of a file, all its pixels, and its digest."""

    listing: Arrays
    pixels: np.ndarray
    digest: object

    def __getattr__(self, name: str):
        return getattr(self.listing, name)


def read_arrays(path: Path) -> Read:
    """Read a file or folder of arrays."""
    sources = (open_source(path, Preparation()) for open_source in SOURCE_KINDS.values())
    source = next(filter(None, sources))
    with TemporaryDirectory() as folder:
        listing = source.read(Path(folder), lambda *_: None)
        pixels = np.concatenate(listing.pixels)
    return Read(listing, pixels, source.state)


def gray_noise(count: int, height: int = 4, width: int = 5) -> np.ndarray:
    """So many gray images, which depend on their number."""
    return np.random.default_rng(count).integers(0, 256, (count, height, width), np.uint8)
