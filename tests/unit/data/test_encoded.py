"""Images that lie encoded in a table are copied into one file, a few at a time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lamina.data import Problem
from lamina.data.preparation import Preparation
from lamina.errors import DataError
from support.table_sources import scan_table, spool, write_encoded_parquet, write_shards

DEFAULTS = Preparation()


def write_images(path: Path, images: list[object]) -> Path:
    pl.DataFrame({"image": images, "label": list(range(len(images)))}).write_parquet(path)
    return path


def test_the_scan_knows_rows_and_the_spool_knows_names(image_set, tmp_path: Path) -> None:
    path = write_encoded_parquet(image_set, tmp_path)
    scanned = scan_table(path, DEFAULTS)
    assert scanned.images[0].name == "pets/0000000"
    assert scanned.labels["label"][:5] == ["cat", "cat", "cat", "cat", "dog"]
    spooled = spool(scanned, tmp_path)
    assert [image.name for image in spooled.images[:2]] == [
        "train-cat-0000.png",
        "train-cat-0001.png",
    ]
    assert {image.file for image in spooled.images} == {str(tmp_path / "spool")}
    assert (spooled.labels, spooled.splits) == (scanned.labels, scanned.splits)
    sizes = [len(data) for data in image_set.encoded.values()]
    assert (tmp_path / "spool").stat().st_size == sum(sizes)


@pytest.mark.parametrize("paths", [["a.png", "a.png"], ["a.png", None], ["", "b.png"]])
def test_ambiguous_names_are_not_used(paths: list[str | None], tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.parquet", [{"bytes": b"x", "path": name} for name in paths])
    names = [image.name for image in spool(scan_table(path, DEFAULTS), tmp_path).images]
    assert names == ["a/0000000", "a/0000001"]


def test_names_that_recur_in_each_split_get_its_name(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(
            tmp_path / f"{split}-00000-of-00001.parquet", [{"bytes": b"x", "path": "1.png"}]
        )
    listing = spool(scan_table(tmp_path, DEFAULTS), tmp_path)
    assert [image.name for image in listing.images] == ["test/1.png", "train/1.png"]


def test_a_file_of_no_split_beside_tables_of_images_is_left_out(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "other"):
        write_images(tmp_path / f"{name}.parquet", [{"bytes": b"x", "path": "1.png"}])
    listing = spool(scan_table(tmp_path, DEFAULTS), tmp_path)
    assert [image.name for image in listing.images] == ["1.png"]
    assert listing.problems == [Problem("other.parquet", "not named after a split")]


def test_the_names_of_two_shards_differ(image_set, tmp_path: Path) -> None:
    listing = scan_table(write_shards(image_set, tmp_path), DEFAULTS)
    assert len({image.name for image in listing.images}) == 21
    assert listing.images[-1].name == "validation-00000-of-00001/0000002"
    assert listing.splits[-1] == "val"


def test_rows_without_bytes_are_problems(tmp_path: Path) -> None:
    images = [{"bytes": data, "path": None} for data in (b"", None, b"xyz")]
    path = write_images(tmp_path / "a.parquet", images)
    listing = spool(scan_table(path, DEFAULTS), tmp_path)
    assert listing.labels == {"label": [0, 2]}
    assert listing.problems == [Problem("a/0000001", "no image bytes in the table")]
    assert [image.read() for image in listing.images] == [b"", b"xyz"]


def test_a_table_whose_images_were_left_outside_says_so(tmp_path: Path) -> None:
    schema = {"image": pl.Struct({"bytes": pl.Binary, "path": pl.String}), "label": pl.Int64}
    rows = {"image": [{"bytes": None, "path": "/home/me/1.png"}], "label": [1]}
    path = tmp_path / "a.parquet"
    pl.DataFrame(rows, schema=schema).write_parquet(path)
    with pytest.raises(DataError) as raised:
        spool(scan_table(path, DEFAULTS), tmp_path)
    assert (
        str(raised.value)
        == f"Cannot use any of the 1 images in {path}; the first is a/0000000 (no image bytes in"
        " the table). Write the table again with the bytes of the images."
    )


def test_a_table_that_changed_in_between_is_noticed(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.parquet", [b"x", b"y", b"z"])
    listing = scan_table(path, DEFAULTS)
    write_images(path, [b"x"])
    with pytest.raises(DataError) as raised:
        spool(listing, tmp_path)
    assert str(raised.value) == f"{path} changed while lamina was reading it. Try again."
