"""Folders of tables and images: which are one, and Hugging Face's Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lamina.data import Problem, load_data
from lamina.data.preparation import Preparation
from lamina.data.sources.table_files import open_table
from lamina.errors import DataError, LaminaWarning
from support.table_sources import (
    TABLE_SOURCES,
    encoded_frame,
    features,
    scan_table,
    scan_text,
    spool,
    write_metadata,
    write_metadata_by_split,
    write_part_files,
    write_shards,
    write_split_folders,
)

DEFAULTS = Preparation()


def test_different_labels_of_one_image_are_refused_or_united(tmp_path: Path) -> None:
    text = "image,label\n1.png,a\n1.png,b\n1.png,a\n2.png,a\n2.png,a\n"
    for task in (None, "single-label"):
        with pytest.raises(DataError, match=r"1 image has several rows .* labels: 1\.png") as error:
            scan_text(tmp_path, text, preparation=Preparation(task=task))
        assert "1.png (a in row 1, b in row 2). If these" in str(error.value)
    with pytest.raises(DataError, match=r"1\.png \(a in row 1, no label in row 2\)\. If these"):
        scan_text(tmp_path, "image,label\n1.png,a\n1.png,\n2.png,b\n")
    united = scan_text(tmp_path, text, preparation=Preparation(task="multi-label"))
    assert united.labels == {"label": [["a", "b"], ["a"]]}
    again = ("named in an earlier row", "named in an earlier row")
    assert united.problems == [Problem("1.png", again[0]), Problem("2.png", again[1])]


def test_conflicts_of_all_kinds_are_refused_together(tmp_path: Path) -> None:
    rows = [f"{name}.png,a,train" for name in "123456"]
    rows += ["1.png,b,train", "2.png,a,test", "3.png,b,test", "4.png,c,train", "5.png,c,train"]
    with pytest.raises(DataError) as error:
        scan_text(tmp_path, "\n".join(["image,label,split", *rows]))
    message = str(error.value)
    assert "2 images have several rows with different splits: 2.png (train in row 2, test in" in (
        message
    )
    assert (
        "4 images have several rows with different labels: 1.png (a in row 1, b in row 7), 3"
        in (message)
    )
    assert "5.png (" not in message
    assert "and 1 more" in message
    assert message.index("--split-column") < message.index("--task multi-label")
    splits = "image,label,split\n1.png,a,train\n1.png,b,test\n2.png,b,train\n"
    with pytest.raises(DataError) as error:
        scan_text(tmp_path, splits, preparation=Preparation(task="multi-label"))
    assert "--split-column" in str(error.value)
    assert "different labels" not in str(error.value)


def test_a_table_may_name_images_in_folders_by_their_file_names(tmp_path: Path) -> None:
    for path in ("part_1/a.jpg", "part_2/b.jpg", "part_1/c.jpg", "part_2/c.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"image")
    listing = scan_text(
        tmp_path, "id,label\na,x\nb.jpg,y\nc,x\n", preparation=Preparation(image_column="id")
    )
    assert [image.name for image in listing.images] == ["part_1/a.jpg", "part_2/b.jpg"]
    assert listing.problems == [Problem("c", "in several places: part_1/c.jpg, part_2/c.png")]


def test_a_folder_of_class_folders_is_no_table_folder(image_set, tmp_path: Path) -> None:
    image_set.write_folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("profile_name,camera\nx,y\n")
    (tmp_path / "data").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "data" / "statistics.parquet")
    assert open_table(tmp_path, DEFAULTS) is None


def test_splits_without_tables_and_files_of_none_are_problems(image_set, tmp_path: Path) -> None:
    write_metadata_by_split(image_set, tmp_path / "a")
    (tmp_path / "a" / "test" / "metadata.jsonl").unlink()
    assert scan_table(tmp_path / "a", DEFAULTS).problems == [
        Problem("test", "no table for its images")
    ]
    write_shards(image_set, tmp_path / "b")
    encoded_frame(image_set).write_parquet(tmp_path / "b" / "data" / "extra-00000-of-00001.parquet")
    listing = scan_table(tmp_path / "b", DEFAULTS)
    assert listing.problems == [
        Problem("data/extra-00000-of-00001.parquet", "not named after a split")
    ]
    assert len(listing.images) == 21


def test_a_table_named_like_a_split_does_not_hide_class_folders(image_set, tmp_path: Path) -> None:
    image_set.write_folder(tmp_path)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "train.parquet")
    np.testing.assert_array_equal(load_data(tmp_path).train.pixels, image_set.select("train")[0])


def test_parquet_beside_images_or_other_folders_is_no_table(image_set, tmp_path: Path) -> None:
    image_set.write_folder(tmp_path)
    frame = pl.DataFrame({"a": [1]})
    for folder in (".", "train", "train/cat"):
        frame.write_parquet(tmp_path / folder / "statistics.parquet")
        assert open_table(tmp_path, DEFAULTS) is None
        assert open_table(tmp_path / "train" / "cat", DEFAULTS) is None
    (tmp_path / "flat" / "notes").mkdir(parents=True)
    (tmp_path / "flat" / "cat_1.png").write_bytes(b"image")
    frame.write_parquet(tmp_path / "flat" / "notes" / "part-0.parquet")
    assert open_table(tmp_path / "flat", DEFAULTS) is None


def test_the_folder_of_an_unpacked_archive_is_stepped_into(image_set, tmp_path: Path) -> None:
    (tmp_path / "__MACOSX").mkdir()
    write_metadata(image_set, tmp_path / "pets" / "inner")
    assert (
        scan_table(tmp_path, DEFAULTS).images
        == scan_table(tmp_path / "pets" / "inner", DEFAULTS).images
    )


def test_a_link_that_leads_in_a_circle_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert open_table(tmp_path, DEFAULTS) is None


def test_files_of_no_split_beside_folders_of_splits_are_problems(image_set, tmp_path: Path) -> None:
    write_split_folders(image_set, tmp_path)
    (tmp_path / "unsupervised").mkdir()
    encoded_frame(image_set).write_parquet(tmp_path / "unsupervised" / "0000.parquet")
    listing = scan_table(tmp_path, DEFAULTS)
    assert listing.problems == [Problem("unsupervised/0000.parquet", "not named after a split")]
    assert len(listing.images) == 21


def test_several_sets_of_parquet_are_rejected(image_set, tmp_path: Path, cache: Path) -> None:
    write_split_folders(image_set, tmp_path / "hf", "default")
    write_split_folders(image_set, tmp_path / "hf", "other")
    with pytest.raises(DataError) as raised:
        load_data(tmp_path / "hf")
    assert (
        str(raised.value)
        == f"{tmp_path / 'hf'} contains several sets of Parquet files: default, other. Use the"
        f" folder of one, such as {tmp_path / 'hf' / 'other'}."
    )
    assert len(load_data(tmp_path / "hf" / "other").train) == 12


def test_parquet_in_an_unknown_layout_is_rejected(image_set, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "sub" / "a").mkdir(parents=True)
    (tmp_path / "sub" / "b").mkdir(parents=True)
    encoded_frame(image_set).write_parquet(tmp_path / "sub" / "a" / "x.parquet")
    encoded_frame(image_set).write_parquet(tmp_path / "sub" / "x.parquet")
    with pytest.raises(DataError) as raised:
        load_data(tmp_path / "sub")
    assert (
        str(raised.value)
        == f"{tmp_path / 'sub'} contains several sets of Parquet files: ., a. Use the folder of"
        f" one, such as {tmp_path / 'sub' / 'a'}."
    )


def test_part_files_without_a_split_are_one_table_without_splits(image_set, tmp_path: Path) -> None:
    write_part_files(image_set, tmp_path)
    for file in tmp_path.glob("*.parquet"):
        pl.read_parquet(file).drop("split").write_parquet(file)
    listing = scan_table(tmp_path, DEFAULTS)
    assert list(listing.splits) == [None] * 21
    assert [image.name for image in listing.images][9:11] == ["part-0/0000009", "part-1/0000000"]


def test_splits_that_name_other_columns_or_classes_are_rejected(image_set, tmp_path: Path) -> None:
    write_shards(image_set, tmp_path)
    test = tmp_path / "data" / "test-00000-of-00001.parquet"
    encoded_frame(image_set, ["test"]).write_parquet(test, metadata=features(("dog", "cat", "owl")))
    with pytest.raises(DataError) as raised:
        scan_table(tmp_path, DEFAULTS)
    assert (
        str(raised.value)
        == f"The files of the table {tmp_path} name different classes. Download or create it again."
    )
    pl.read_parquet(test).drop("label").write_parquet(
        tmp_path / "data" / "train-00001-of-00002.parquet"
    )
    with pytest.raises(DataError, match="has no column 'label' for --label-column"):
        scan_table(tmp_path, DEFAULTS)


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"image")
    (tmp_path / "2.png").write_bytes(b"image")
    (tmp_path / "3.png").write_bytes(b"image")
    stored = {
        "tags": {"feature": {"names": ["red", "big"], "_type": "ClassLabel"}, "_type": "Sequence"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    frame = pl.DataFrame(
        {"image": ["1.png", "2.png", "3.png"], "label": [1, -1, None], "tags": [[0, 1], [], None]}
    )
    frame.write_parquet(
        tmp_path / "a.parquet", metadata={"huggingface": json.dumps({"info": {"features": stored}})}
    )
    listing = scan_table(tmp_path / "a.parquet", Preparation(label_columns=("label", "tags")))
    assert listing.labels == {"label": ["dog", None, None], "tags": [["red", "big"], [], None]}
    assert listing.target_names is None
    assert scan_table(tmp_path / "a.parquet", DEFAULTS).target_names == ("cat", "dog")

    frame.with_columns(label=pl.Series([0, 2, 1])).write_parquet(
        tmp_path / "b.parquet", metadata=features(("a", "b"))
    )
    with pytest.raises(DataError) as raised:
        scan_table(tmp_path / "b.parquet", DEFAULTS)
    assert (
        str(raised.value)
        == f"Column 'label' of {tmp_path / 'b.parquet'} has the label 2, but names only 2 classes,"
        " 0 to 1. Correct the labels or the names, and create the file again."
    )


@pytest.mark.parametrize(
    "stored", ["no json", "[]", "{}", '{"info": {"features": 3}}', "[" * 100_000]
)
def test_metadata_without_classes_is_ignored(stored: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"image")
    frame = pl.DataFrame({"image": ["1.png"], "label": [1]})
    frame.write_parquet(tmp_path / "a.parquet", metadata={"huggingface": stored})
    assert scan_table(tmp_path / "a.parquet", DEFAULTS).labels == {"label": [1]}


def test_any_damage_to_parquet_is_one_plain_error_or_none(image_set, tmp_path: Path) -> None:
    good = TABLE_SOURCES["hugging face parquet"](image_set, tmp_path).read_bytes()
    random = np.random.default_rng(5)
    path = tmp_path / "damaged.parquet"
    rejected = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(3):  # mostly in the footer, which says where the rest is
            place = random.integers(len(good) - 1000 if random.random() < 0.7 else 0, len(good))
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            spool(scan_table(path, DEFAULTS), tmp_path)
        except DataError:
            rejected += 1
    assert 0 < rejected < 150


@pytest.mark.parametrize("options", [{"task": "multi-label"}, {"label_separator": "|"}])
def test_joined_labels_in_several_rows_of_an_image_are_split(options, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    text = "image,label\n0.png,cat|dog\n0.png,bird\n1.png,cat\n2.png,dog|bird\n"
    (tmp_path / "pets.csv").write_text(text)
    preparation = Preparation(test_fraction=0.0, val_fraction=0.0, **options)
    train = load_data(tmp_path / "pets.csv", preparation).train
    assert train.target_names == ("bird", "cat", "dog")
    expected = [[True, True, True], [False, True, False], [True, False, True]]
    assert train.targets.tolist() == expected


def test_rows_without_a_split_are_left_out_and_named(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["image,label,split"]
    for number, split in enumerate(("train", "train", "test", "", "test", "test")):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},{split}")
    (tmp_path / "pets.csv").write_text("\n".join(rows))
    with pytest.warns(
        LaminaWarning, match=r"Left out 1 image: 3\.png \(no value in column 'split'"
    ):
        data = load_data(tmp_path / "pets.csv")
    assert data.train.names == ("0.png", "1.png")
