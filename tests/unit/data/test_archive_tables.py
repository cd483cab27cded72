"""Tables in an archive of images."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from lamina.data import load_data
from lamina.errors import DataError
from support.archives import write_tar, write_zip
from support.table_sources import write_metadata, write_metadata_by_split


def pack(folder: Path, path: Path) -> Path:
    """All files of a folder in a zip or a tar."""
    files = {
        str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, file in files.items():
                archive.write(file, name)
    else:
        with tarfile.open(path, "w") as tar:
            for name, file in files.items():
                tar.add(file, name)
    return path


@pytest.mark.parametrize(
    ("kind", "table", "top", "by_split"),
    [
        ("zip", "metadata.csv", "", False),
        ("tar", "metadata.jsonl", "pets/", True),
        ("zip", "metadata.parquet", "pets/inner/", True),
        ("tar", "metadata.csv", "pets/inner/", False),
    ],
)
def test_a_table_beside_packed_images_is_rejected(
    kind: str, table: str, top: str, by_split: bool, image_set, tmp_path: Path, cache: Path
) -> None:
    write = write_metadata_by_split if by_split else write_metadata
    write(image_set, tmp_path / "all" / top, table.rpartition(".")[2])
    path = pack(tmp_path / "all", tmp_path / f"a.{kind}")
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert (
        str(raised.value)
        == f"{path} contains a table, {top}{('test/' if by_split else '')}{table}, but lamina reads"
        " tables only from folders. Unpack the archive and use the path of the table or its"
        " folder."
    )
    # What is advised helps.
    assert len(load_data(tmp_path / "all").train) == 12


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_other_tables_in_an_archive_of_class_folders_change_nothing(
    kind: str, image_set, tmp_path: Path
) -> None:
    image_set.write_folder(tmp_path / "all")
    for name, text in {
        "metadata.csv": "profile_name,camera\nx,file_name\n",
        "labels.csv": "file_name,label\n1.png,a\n",
        "train/cat/metadata.csv": "file_name,label\n1.png,a\n",
    }.items():
        (tmp_path / "all" / name).write_text(text)
    images = load_data(pack(tmp_path / "all", tmp_path / f"a.{kind}")).train
    assert images.target_names == ("cat", "dog", "owl")
    assert len(images) == 12


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "pets.csv"])
def test_an_archive_of_tables_alone_says_to_unpack_it(
    kind: str, name: str, tmp_path: Path, cache: Path
) -> None:
    path = (write_zip if kind == "zip" else write_tar)(tmp_path / f"a.{kind}", name)
    with pytest.raises(DataError, match=f" contains a table, {name}, but lamina reads tables only"):
        load_data(path)
