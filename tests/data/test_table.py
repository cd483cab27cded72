"""What a table says of its pictures, and what is said of a table that is wrong."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_sources import make_pictures
from table_sources import (
    CLASSES,
    ENCODED_SOURCES,
    TABLE_SOURCES,
    encoded_frame,
    features,
    rows_of,
    write_csv,
    write_metadata,
    write_metadata_by_split,
    write_shards,
    write_text,
)

from lamina.data import Problem
from lamina.data.decoding import PictureReader, decode_picture
from lamina.data.encoded import spool_table
from lamina.data.preparation import Preparation
from lamina.data.table import is_table, is_table_folder, scan_table
from lamina.errors import DataError

NOTHING_ASKED = Preparation()


def scan_text(tmp_path: Path, text: str | bytes, name: str = "pets.csv", asked: Preparation = NOTHING_ASKED):
    """Scan a table beside the pictures 1.png to 9.png."""
    for number in range(1, 10):
        (tmp_path / f"{number}.png").write_bytes(b"picture")
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return scan_table(tmp_path / name, asked)


def refusal(tmp_path: Path, text: str | bytes, name: str = "pets.csv", asked: Preparation = NOTHING_ASKED) -> str:
    with pytest.raises(DataError) as raised:
        scan_text(tmp_path, text, name, asked)
    return str(raised.value).replace(str(tmp_path), "DIR")


@pytest.mark.parametrize("form", TABLE_SOURCES)
def test_every_layout_tells_the_same_pictures_classes_and_splits(form: str, pictures, tmp_path: Path) -> None:
    (root := tmp_path / "set").mkdir()
    path = TABLE_SOURCES[form](pictures, root)

    assert is_table_folder(path) if path.is_dir() else is_table(path)
    listing = spool_table(scan_table(path, NOTHING_ASKED), tmp_path)

    assert listing.problems == []
    assert listing.label_reason == "column 'label'"
    assert listing.target_names == (CLASSES if form.startswith("hugging face") else None)
    with PictureReader() as reader:
        found = {
            (split, label, decode_picture(reader.read(picture)).tobytes())
            for picture, split, label in zip(listing.pictures, listing.splits, listing.labels["label"], strict=True)
        }
    expected = {(*name.split("/")[:2], pixels.tobytes()) for name, pixels in pictures.pixels.items()}
    assert found == expected
    assert len(listing.pictures) == len(expected)
    assert (tmp_path / "spool").exists() == (form in ENCODED_SOURCES)


def test_pictures_keep_the_order_and_the_names_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"picture")
    listing = scan_text(tmp_path, "image,label\n3.png,b\n./a//0.png,a\na\\..\\1.png,b\n")
    assert [picture.name for picture in listing.pictures] == ["3.png", "a/0.png", "1.png"]
    assert [Path(picture.file) for picture in listing.pictures] == [
        tmp_path / name for name in ("3.png", "a/0.png", "1.png")
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["cat", "dog", ""], ["cat", "dog", None]),
        (["1", "0", "-3"], [1, 0, -3]),
        (["1", "NA", "2"], [1, None, 2]),
        (["0.5", "nan", "2"], [0.5, None, 2.0]),
        (["True", "false", "TRUE"], [True, False, True]),
        (["007", "010", "1"], ["007", "010", "1"]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["NA", "DE", "FR"], ["NA", "DE", "FR"]),
    ],
)
def test_a_column_of_text_holds_what_all_of_its_values_are(cells, expected, tmp_path: Path) -> None:
    lines = [f"{number}.png,{cell}" for number, cell in enumerate(cells, 1)]
    values = scan_text(tmp_path, "\n".join(["image,label", *lines])).labels["label"]
    assert values == expected
    assert [type(value) for value in values] == [type(value) for value in expected]


@given(
    labels=st.lists(
        st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=9)), min_size=1, max_size=9
    ).filter(any)
)
@settings(max_examples=50)
def test_texts_in_json_lines_come_as_they_stand(labels, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = [{"image": f"{number}.png", "label": label} for number, label in enumerate(labels, 1)]
    listing = scan_text(folder, "".join(json.dumps(row) + "\n" for row in rows), "pets.jsonl")
    assert listing.labels["label"] == [label or None for label in labels]


def test_json_lines_hold_lists_of_labels_numbers_and_truth_values(tmp_path: Path) -> None:
    text = '{"image":"1.png","tags":["a","b"]}\n{"image":"2.png","tags":[]}\n{"image":"3.png","tags":null}\n'
    assert scan_text(tmp_path, text, "pets.jsonl").labels == {"tags": [["a", "b"], [], None]}
    text = '{"image":"1.png","x":1.5,"wild":true}\n{"image":"2.png","x":null,"wild":false}\n'
    listing = scan_text(tmp_path, text, "more.jsonl")
    assert listing.labels == {"x": [1.5, None], "wild": [True, False]}
    assert listing.label_reason == "columns 'x', 'wild'"


def test_a_line_of_many_megabytes_is_read(tmp_path: Path) -> None:
    text = json.dumps({"image": "1.png", "label": "cat", "note": "x" * 2**24}) + "\n"
    assert scan_text(tmp_path, text, "pets.jsonl").labels == {"label": ["cat"]}


def test_a_decimal_comma_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    listing = scan_text(tmp_path, b"\xef\xbb\xbfImage; Label\r\n1.png; caf\xc3\xa9\r\n\r\n2.png; tea\r\n")
    assert listing.labels == {"Label": ["café", "tea"]}


@pytest.mark.parametrize(
    ("header", "image", "labels"),
    [
        ("label,image", "image", ["label"]),
        ("FILE NAME,Class", "FILE NAME", ["Class"]),
        ("picture_of,label", "picture_of", ["label"]),
        ("id,image,label,label_name", "image", ["label"]),
        ("img,fine_label,coarse_label", "img", ["fine_label"]),
        ("id,path,width,height", "path", ["width", "height"]),
    ],
)
def test_columns_are_found_by_name_or_by_what_they_hold(header: str, image: str, labels, tmp_path: Path) -> None:
    columns = header.split(",")
    cells = ["1.png" if column == image else "4" for column in columns]
    listing = scan_text(tmp_path, f"{header}\n{','.join(cells)}\n")
    assert list(listing.labels) == labels
    assert [picture.name for picture in listing.pictures] == ["1.png"]


def test_columns_that_are_asked_for_are_taken(tmp_path: Path) -> None:
    text = "before,after,label,x,y,fold\n1.png,2.png,cat,1,2,Train\n3.png,4.png,dog,3,4,DEV\n"
    asked = Preparation(image_column="after", label_columns=("y", "x"), split_column="fold")
    listing = scan_text(tmp_path, text, asked=asked)
    assert [picture.name for picture in listing.pictures] == ["2.png", "4.png"]
    assert listing.labels == {"y": [2, 4], "x": [1, 3]}
    assert listing.splits == ["train", "val"]


def test_a_split_column_is_known_by_its_name_and_its_values(tmp_path: Path) -> None:
    listing = scan_text(tmp_path, "image,label,Subset\n1.png,a,TRAIN\n2.png,b,validation\n3.png,a,test\n4.png,b,\n")
    assert listing.splits == ["train", "val", "test", None]
    other = scan_text(tmp_path, "image,label,split\n1.png,a,left\n2.png,b,right\n", "more.csv")
    assert other.splits == [None, None]


def test_folders_of_splits_tell_the_splits_where_no_column_does(pictures, tmp_path: Path) -> None:
    write_metadata(pictures, tmp_path)
    (tmp_path / "pets.csv").write_text("path,label\ntrain/cat/0000.png,cat\nother/1.png,dog\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.png").write_bytes(b"picture")
    assert set(scan_table(tmp_path, NOTHING_ASKED).splits) == {"train", "val", "test"}
    assert scan_table(tmp_path / "pets.csv", NOTHING_ASKED).splits == [None, None]


def test_rows_without_a_usable_picture_are_problems(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "folder.png").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "away").symlink_to(tmp_path)
    (root / "near.png").symlink_to(root / "1.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    names = ["1.png", "near.png", "", "10.png", "../secret.png", "a/../../secret.png", "link.png", "away/secret.png"]
    names += ["away/set/2.png", str(root / "1.png"), "C:\\1.png", "folder.png", "1.png/2.png", "./1.png", "loop.png"]
    names += ["x" * 300, "a\0b.png"]
    listing = scan_text(root, "image,label\n" + "".join(f"{name},a\n" for name in names))
    assert [picture.name for picture in listing.pictures] == ["1.png", "near.png", "away/set/2.png"]
    assert listing.problems == [
        Problem("row 3", "names no picture"),
        Problem("10.png", "no such file"),
        Problem("../secret.png", "outside the table's folder"),
        Problem("a/../../secret.png", "outside the table's folder"),
        Problem("link.png", "outside the table's folder"),
        Problem("away/secret.png", "outside the table's folder"),
        Problem(str(root / "1.png"), "an absolute path"),
        Problem("C:\\1.png", "an absolute path"),
        Problem("folder.png", "no file"),
        Problem("1.png/2.png", "no such file"),
        Problem("./1.png", "named before, in row 1"),
        Problem("loop.png", "too many levels of symbolic links"),
        Problem("x" * 200, "file name too long"),
        Problem("a\0b.png", "no such file"),
    ]
