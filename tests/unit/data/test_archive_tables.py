"""Tables in an archive of images."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from lamina.data import load_data
from lamina.errors import DataError
from support.image_sources import write_zip
from support.table_sources import write_metadata, write_metadata_by_split, write_shards


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
def test_a_table_beside_packed_images_is_read_as_in_a_folder(
    kind: str, table: str, top: str, by_split: bool, image_set, tmp_path: Path, cache: Path
) -> None:
    write = write_metadata_by_split if by_split else write_metadata
    write(image_set, tmp_path / "all" / top, table.rpartition(".")[2])
    expected = load_data(tmp_path / "all")
    packed = load_data(pack(tmp_path / "all", tmp_path / f"a.{kind}"))
    assert len(packed.train) == 12
    assert packed.fingerprint == expected.fingerprint
    assert packed.target_reason == expected.target_reason
    assert packed.problems == expected.problems


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_other_tables_beside_packed_class_folders_change_nothing(
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
def test_parquet_files_in_an_archive_are_read(kind: str, image_set, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    write_shards(image_set, tmp_path / "all")
    expected = load_data(tmp_path / "all")
    packed = load_data(pack(tmp_path / "all", tmp_path / f"a.{kind}"))
    assert packed.fingerprint == expected.fingerprint


def test_an_error_names_a_file_inside_the_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", "all/metadata.csv", b"file_name,label\n../1.png,cat\n")
    with pytest.raises(DataError) as raised:
        load_data(path)
    message = str(raised.value)
    assert f"that {path / 'all' / 'metadata.csv'} names" in message
    assert "unpacked" not in message
    assert message.endswith(" Unpack the archive to use a path inside it.")
