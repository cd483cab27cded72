"""What a table says of its images, and what is said of a table that is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data import Problem
from lamina.data.labels import read_targets
from lamina.data.preparation import Preparation
from lamina.errors import DataError
from support.examples import count_examples
from support.table_sources import (
    TABLE_SOURCES,
    scan_table,
    scan_text,
    state_of_table,
    write_metadata,
)

DEFAULTS = Preparation()
POLARS = tuple(map(int, pl.__version__.split(".")[:2]))


def rejection(
    tmp_path: Path, text: str | bytes, name: str = "pets.csv", preparation: Preparation = DEFAULTS
) -> str:
    with pytest.raises(DataError) as raised:
        scan_text(tmp_path, text, name, preparation)
    return str(raised.value).replace(str(tmp_path), "DIR")


def test_images_keep_the_order_and_the_names_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"image")
    listing = scan_text(tmp_path, "image,label\n3.png,b\n./a//0.png,a\na\\..\\1.png,b\n")
    assert [image.name for image in listing.images] == ["3.png", "a/0.png", "1.png"]
    assert [Path(image.file) for image in listing.images] == [
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
        (["NA", "", "NA"], ["NA", None, "NA"]),
        (["12345678901234567890", "+2"], [12345678901234567890, 2]),
        (["1_000", "2"], ["1_000", "2"]),
        (["1e3", ".5"], [1000.0, 0.5]),
        (['"a, ""b"""', '" c \n d"'], ['a, "b"', "c \n d"]),
    ],
)
def test_a_column_of_text_holds_what_all_of_its_values_are(cells, expected, tmp_path: Path) -> None:
    lines = [f"{number}.png,{cell}" for number, cell in enumerate(cells, 1)]
    values = scan_text(tmp_path, "\n".join(["image,label", *lines])).labels["label"]
    assert values == expected
    assert [type(value) for value in values] == [type(value) for value in expected]


@given(
    labels=st.lists(
        st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=9)),
        min_size=1,
        max_size=9,
    ).filter(any)
)
@settings(max_examples=count_examples(20))
def test_texts_in_json_lines_are_unchanged(labels, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = [{"image": f"{number}.png", "label": label} for number, label in enumerate(labels, 1)]
    listing = scan_text(folder, "".join(json.dumps(row) + "\n" for row in rows), "pets.jsonl")
    assert listing.labels["label"] == [label or None for label in labels]


@pytest.mark.parametrize(
    "text",
    [
        "image;label\n1.png;1.234,5\n2.png;0,5\n",
        "image\tlabel\n1.png\t0,5\n2.png\t-1\n3.png\t1,5E-02\n",
        "image;label\n1.png;1,234\n2.png;12,345\n3.png;7\n",
        'image,label\n1.png,"1,234"\n2.png,"12,345,678"\n',
        'image,label\n1.png,"0,5"\n2.png,"0,7"\n',
        "image;label\n1.png;1,2,3\n2.png;3\n",
        "image,label\n1.png,3.5 kg\n2.png,4 kg\n3.png,12.25 kg\n",
        "image,label\n1.png,3.5\n2.png,4\n3.png,unknown\n",
    ],
)
def test_texts_that_look_like_numbers_are_refused(text: str, tmp_path: Path) -> None:
    preparation = Preparation(label_columns=("label",))
    listing = scan_text(tmp_path, text, preparation=preparation)
    with pytest.raises(DataError) as raised:
        read_targets(listing.files, preparation)
    message = str(raised.value)
    assert message.startswith("Column 'label' looks like numbers, but has values such as '")
    assert "as in 1234.5. If commas separate several labels, use --task multi-label;" in message


def test_an_unclear_column_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    text = 'image,label,price\n1.png,a,"1,234"\n2.png,b,"5,678"\n'
    assert scan_text(tmp_path, text).labels == {"label": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("image;label;size (w,h)\n1.png;a;3\n2.png;b;4\n", ["a", "b"]),
        ("image;label;size (w,h)\n1.png;a;0,3\n2.png;b;0,4\n", ["a", "b"]),
        ('image,label,"a;b"\n1.png,"x;y",3\n2.png,z,4\n', ["x;y", "z"]),
        ("image,label,a;b\n1.png,x,1;2\n2.png,y,3;4\n", ["x", "y"]),
        ("image\tlabel, or class\n1.png\ta\n2.png\tb\n", ["a", "b"]),
        ("image;label;note\n1.png;a\n2.png;b,c\n", ["a", "b,c"]),
        ('image;label\n1.png;"a\n;,b"\n2.png;c\n', ["a\n;,b", "c"]),
    ],
)
def test_the_separator_divides_all_of_the_first_rows_alike(
    text: str, labels: list[str], tmp_path: Path
) -> None:
    column = "label, or class" if "or class" in text else "label"
    listing = scan_text(tmp_path, text, preparation=Preparation(label_columns=(column,)))
    assert listing.labels == {column: labels}


def test_json_lines_hold_lists_of_labels_numbers_and_truth_values(tmp_path: Path) -> None:
    text = (
        '{"image":"1.png","tags":["a","b"]}\n'
        '{"image":"2.png","tags":[]}\n'
        '{"image":"3.png","tags":null}\n'
    )
    assert scan_text(tmp_path, text, "pets.jsonl").labels == {"tags": [["a", "b"], [], None]}
    text = '{"image":"1.png","x":1.5,"wild":true}\n{"image":"2.png","x":null,"wild":false}\n'
    listing = scan_text(tmp_path, text, "more.jsonl")
    assert listing.labels == {"x": [1.5, None], "wild": [True, False]}
    assert listing.label_reason == "columns 'x', 'wild'"


def test_texts_and_numbers_in_one_column_of_json_lines_are_texts(tmp_path: Path) -> None:
    text = '{"image":"1.png","label":"a"}\n{"image":"2.png","label":7}\n{"image":"3.png"}\n'
    assert scan_text(tmp_path, text, "pets.jsonl").labels == {"label": ["a", "7", None]}


def test_a_line_of_many_megabytes_is_read(tmp_path: Path) -> None:
    text = json.dumps({"image": "1.png", "label": "cat", "note": "x" * 2**24}) + "\n"
    assert scan_text(tmp_path, text, "pets.jsonl").labels == {"label": ["cat"]}


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    listing = scan_text(
        tmp_path, b"\xef\xbb\xbfImage; Label\r\n1.png; caf\xc3\xa9\r\n\r\n2.png; tea\r\n"
    )
    assert listing.labels == {"Label": ["café", "tea"]}


@pytest.mark.parametrize(
    ("header", "image", "labels"),
    [
        ("label,image", "image", ["label"]),
        ("FILE NAME,Class", "FILE NAME", ["Class"]),
        ("image_of,label", "image_of", ["label"]),
        ("id,image,label,label_name", "image", ["label"]),
        ("img,fine_label,coarse_label", "img", ["fine_label"]),
        ("id,path,width,height", "path", ["width", "height"]),
    ],
)
def test_columns_are_found_by_name_or_because_they_are_the_only_ones(
    header: str, image: str, labels, tmp_path: Path
) -> None:
    columns = header.split(",")
    cells = ["1.png" if column == image else "4" for column in columns]
    listing = scan_text(tmp_path, f"{header}\n{','.join(cells)}\n")
    assert list(listing.labels) == labels
    assert [image.name for image in listing.images] == ["1.png"]


def test_a_column_with_a_well_known_name_is_preferred(tmp_path: Path) -> None:
    listing = scan_text(tmp_path, "thumbnail,picture,label\n2.png,1.png,4\n")
    assert [image.name for image in listing.images] == ["1.png"]


def test_requested_columns_are_used(tmp_path: Path) -> None:
    text = "before,after,label,x,y,fold\n1.png,2.png,cat,1,2,Train\n3.png,4.png,dog,3,4,DEV\n"
    preparation = Preparation(image_column="after", label_columns=("y", "x"), split_column="fold")
    listing = scan_text(tmp_path, text, preparation=preparation)
    assert [image.name for image in listing.images] == ["2.png", "4.png"]
    assert listing.labels == {"y": [2, 4], "x": [1, 3]}
    assert listing.splits == ["train", "val"]


def test_a_split_column_is_known_by_its_name_and_its_values(tmp_path: Path) -> None:
    listing = scan_text(
        tmp_path, "image,label,Subset\n1.png,a,TRAIN\n2.png,b,validation\n3.png,a,test\n4.png,b,\n"
    )
    assert listing.splits == ["train", "val", "test"]
    assert listing.problems == [Problem("4.png", "no value in column 'Subset'")]
    other = scan_text(tmp_path, "image,label,split\n1.png,a,left\n2.png,b,right\n", "more.csv")
    assert other.splits == [None, None]


def test_folders_of_splits_give_the_splits_without_a_column(image_set, tmp_path: Path) -> None:
    write_metadata(image_set, tmp_path)
    (tmp_path / "pets.csv").write_text("path,label\ntrain/cat/0000.png,cat\nother/1.png,dog\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.png").write_bytes(b"image")
    assert set(scan_table(tmp_path, DEFAULTS).splits) == {"train", "val", "test"}
    assert scan_table(tmp_path / "pets.csv", DEFAULTS).splits == [None, None]


def test_rows_without_a_usable_image_are_problems(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "folder.png").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "away").symlink_to(tmp_path)
    (root / "near.png").symlink_to(root / "1.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    names = [
        "1.png",
        "near.png",
        "",
        "10.png",
        "../set/1.png",
        "link.png",
        "away/set/2.png",
        str(root / "2.png"),
        "C:\\1.png",
        "folder.png",
        "1.png/2.png",
        "./1.png",
        "loop.png",
    ]
    names += ["x" * 300, "a\0b.png"]
    listing = scan_text(root, "image,label\n" + "".join(f"{name},a\n" for name in names))
    assert [image.name for image in listing.images] == [
        "1.png",
        "near.png",
        "../set/1.png",
        "link.png",
        "away/set/2.png",
        str(root / "2.png"),
    ]
    assert listing.images[-1].file == str(root / "2.png")
    assert listing.problems == [
        Problem("row 3", "names no image"),
        Problem("10.png", "no such file"),
        Problem("C:\\1.png", "no such file"),
        Problem("folder.png", "not a regular file"),
        Problem("1.png/2.png", "no such file"),
        Problem("1.png", "named in an earlier row"),
        Problem("loop.png", "too many levels of symbolic links"),
        Problem("x" * 200, "file name too long"),
        Problem("a\0b.png", "no such file"),
    ]


COLUMNS = "Its columns are image (text), label (number)."


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("image,label\n", {}, "DIR/pets.csv has no rows; expected one for each image. Add them."),
        (
            "",
            {},
            (
                "DIR/pets.csv is empty; expected a row of column names, then one row for each"
                " image. Add them."
            ),
        ),
        (
            "image,label,label\n1.png,1,2\n",
            {},
            "DIR/pets.csv has more than one column named 'label'. Rename them to unique names.",
        ),
        (
            "cats/1.png,cat\ncats/2.png,cat\n",
            {},
            (
                "The first row of DIR/pets.csv looks like data ('cats/1.png'); expected column"
                " names. Insert a first row such as image,label."
            ),
        ),
        (
            "image,label\n1.png,a\n2.png,b,c\n",
            {},
            (
                "The rows of DIR/pets.csv do not fit its first row: found more fields than defined"
                " in 'Schema'. Put text that contains ',' in double quotes, and double each quote"
                " in it."
            ),
        ),
        (
            "image,label\n1.png,café\n2.png,tea\n".encode("latin-1"),
            {},
            (
                "DIR/pets.csv is not UTF-8. Save it as UTF-8 (in Excel, 'CSV UTF-8'), or convert it"
                " with iconv."
            ),
        ),
        (
            "image,label\n1.png,a\n".encode("utf-16"),
            {},
            (
                "DIR/pets.csv is not UTF-8. Save it as UTF-8 (in Excel, 'CSV UTF-8'), or convert it"
                " with iconv."
            ),
        ),
        (
            "image,species\n1.png,cat\n",
            {},
            (
                "DIR/pets.csv has no column named like label or class. Choose the column of targets"
                " with --label-column (in Python, label_columns). Its columns are image (text),"
                " species (text)."
            ),
        ),
        (
            "image,split\n1.png,train\n",
            {},
            (
                "DIR/pets.csv has no column named like label or class. Choose the column of targets"
                " with --label-column (in Python, label_columns). Its columns are image (text),"
                " split (text)."
            ),
        ),
        (
            "image,label\n1.png,1\n",
            {"label_columns": ("lable",)},
            "DIR/pets.csv has no column 'lable' for --label-column. Did you mean label?",
        ),
        (
            "image,label\n1.png,1\n",
            {"label_columns": ("label", "label")},
            "Column 'label' is named twice for --label-column. Name each column once.",
        ),
        (
            "image,label\n1.png,1\n",
            {"label_columns": ("image",)},
            (
                "Column 'image' of DIR/pets.csv holds the images, so it cannot be a label column."
                " Choose another with --label-column (in Python, label_columns)."
            ),
        ),
        (
            "image,label,sick\n1.png,1,true\n",
            {"image_column": "sick"},
            (
                "Column 'sick' of DIR/pets.csv is of type truth; --image-column needs image paths,"
                " numbers or bytes. Its columns are image (text), label (number), sick (truth)."
            ),
        ),
        (
            "image,label\n1.png,1\n",
            {"split_column": "fold"},
            "DIR/pets.csv has no column 'fold' for --split-column. Choose from: image, label.",
        ),
        (
            "image,label\n1.png,1\n",
            {"split_column": "label"},
            (
                "Column 'label' of DIR/pets.csv is of type number; --split-column needs train, val"
                f" or test in each row. {COLUMNS}"
            ),
        ),
        (
            "image,label,split\n1.png,1,train\n2.png,2,spare\n",
            {},
            (
                "Column 'split' of DIR/pets.csv contains 'spare'; expected train, val or test."
                " Rename them, or remove those rows."
            ),
        ),
        (
            "a,b,label\n1.png,2.png,1\n",
            {},
            (
                "DIR/pets.csv has no column named like image or file. Choose the column of image"
                " paths or bytes with --image-column (in Python, image_column). Its columns are a"
                " (text), b (text), label (number)."
            ),
        ),
        (
            "id,label,split\n1,frog,train\n",
            {},
            (
                "DIR/pets.csv has no column named like image or file. Choose the column of image"
                " paths or bytes with --image-column (in Python, image_column). Its columns are id"
                " (number), label (text), split (text)."
            ),
        ),
        (
            "what,label\nred,1\n",
            {},
            (
                "Cannot use any of the 1 images that DIR/pets.csv names; the first is red (no such"
                " file). Write paths relative to DIR into column 'what', or choose another column"
                " with --image-column (in Python, image_column)."
            ),
        ),
        (
            "image,label\nhttps://example.org/1.png,1\n",
            {},
            (
                "Cannot use any of the 1 images that DIR/pets.csv names; the first is"
                " https://example.org/1.png (no such file). Write paths relative to DIR into column"
                " 'image', or choose another column with --image-column (in Python, image_column)."
            ),
        ),
        (
            "image,label\n../1.png,1\n11.png,2\n",
            {},
            (
                "Cannot use any of the 2 images that DIR/pets.csv names; the first is ../1.png"
                " (no such file). Write paths relative to DIR into column 'image', or choose"
                " another column with --image-column (in Python, image_column)."
            ),
        ),
        (
            "image|label\n1.png|a\n2.png|b\n",
            {},
            (
                "DIR/pets.csv has a single column, 'image|label'; expected one for the images and"
                " one for the targets. Separate them with commas, semicolons or tabs."
            ),
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_what_to_do(
    text, options, message: str, tmp_path: Path
) -> None:
    assert rejection(tmp_path, text, preparation=Preparation(**options)) == message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('image,label\n"1.png,1\n2.png,2\n', "pets.csv"),
        ('{"image": "1.png", "label": \n', "pets.jsonl"),
        ('["1.png", 2]\n', "pets.jsonl"),
        pytest.param(
            '{"image":' + "[" * 100_000 + "]" * 100_000 + "}\n",
            "pets.jsonl",
            marks=pytest.mark.skipif(
                POLARS < (2, 1), reason="polars 2.1 is the first with a limit; older ones crash"
            ),
        ),
        (b"", "pets.parquet"),
        (b"PAR1 and nothing else PAR1", "pets.parquet"),
        ("image,label" + ",x" * 50_000 + '\n"1.png', "pets.csv"),
    ],
    ids=[
        "open quote",
        "no value",
        "line that is a list",
        "deep brackets",
        "empty parquet",
        "no parquet",
        "wide table",
    ],
)
def test_a_damaged_table_is_one_plain_error(text, name: str, tmp_path: Path) -> None:
    message = rejection(tmp_path, text, name)
    starts = ("Cannot read DIR/", "The rows of DIR/", "DIR/pets.csv has more than one column")
    assert message.startswith(starts)
    assert len(message) < 400


def test_an_empty_file_of_json_lines_has_no_rows(tmp_path: Path) -> None:
    assert (
        rejection(tmp_path, "\n", "pets.jsonl")
        == "DIR/pets.jsonl has no rows; expected one for each image. Add them."
    )


def test_values_that_cannot_be_learned_are_rejected(tmp_path: Path) -> None:
    text = '{"image":"1.png","label":{"x":1}}\n'
    assert (
        rejection(tmp_path, text, "pets.jsonl")
        == "Column 'label' of DIR/pets.jsonl is of type other; --label-column needs text, numbers,"
        " booleans or lists of text. Its columns are image (text), label (other)."
    )


def test_an_empty_column_is_called_empty(tmp_path: Path) -> None:
    assert (
        rejection(tmp_path, "image,label\n1.png,\n")
        == "Column 'label' of DIR/pets.csv is empty; --label-column needs text, numbers, booleans"
        " or lists of text. Its columns are image (text), label (empty)."
    )


@pytest.mark.parametrize("form", ["csv", "metadata.jsonl by split", "hugging face shards"])
def test_the_digest_changes_with_the_table_and_its_images(
    form: str, image_set, tmp_path: Path
) -> None:
    path = TABLE_SOURCES[form](image_set, tmp_path)
    before = state_of_table(path, DEFAULTS)
    assert state_of_table(path, DEFAULTS) == before
    for file in sorted(tmp_path.rglob("*.*")):
        if file.is_file():
            os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
            after = state_of_table(path, DEFAULTS)
            assert after != before
            before = after


def test_a_missing_image_that_appears_changes_the_digest(tmp_path: Path) -> None:
    before = scan_text(tmp_path, "image,label\n1.png,a\n10.png,b\n")
    before_state = state_of_table(tmp_path / "pets.csv", DEFAULTS)
    (tmp_path / "10.png").write_bytes(b"image")
    after = scan_table(tmp_path / "pets.csv", DEFAULTS)
    assert (len(before.images), len(after.images)) == (1, 2)
    assert before_state != state_of_table(tmp_path / "pets.csv", DEFAULTS)
