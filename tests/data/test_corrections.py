"""Corrected labels and excluded images: every natural edit of the table works, and a contradiction is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Dataset, Preparation, load_data
from lamina.data.corrections import COLUMNS, format_rows, read_corrections
from lamina.errors import DataError

HEAD = "image,given,likely,action\n"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog", "=1+1"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pets"


def load_corrected(pets: Path, text: str | bytes, exclude: str | None = None) -> Dataset:
    file, excluded = pets.parent / "table.csv", pets.parent / "excluded.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if exclude is not None:
        excluded.write_text(exclude)
    given = {"labels_from": (str(file),) if text else (), "exclude": None if exclude is None else str(excluded)}
    return load_data(pets, Preparation(**given))


def label_of(data: Dataset, name: str) -> str:
    images = data.train if name in data.train.names else data.test
    assert images is not None
    return images.target_names[images.targets[images.names.index(name)]]


def test_the_likely_labels_are_taken_where_nothing_was_edited(pets):
    data = load_corrected(pets, HEAD + "train/cat/0.png,cat,dog,\ntrain/cat/1.png,cat,=1+1,keep\n")
    assert (label_of(data, "train/cat/0.png"), label_of(data, "train/cat/1.png")) == ("dog", "cat")
    assert (data.corrected, data.excluded) == (1, 0)


def test_edited_labels_are_taken_and_the_others_of_the_table_stay(pets):
    rows = ("cat/0.png,=1+1,dog,", "cat/1.png,cat,dog,", "cat/2.png,cat,dog,correct", "dog/0.png,dog,cat,exclude")
    data = load_corrected(pets, HEAD + "".join(f"train/{row}\n" for row in rows))
    found = [label_of(data, f"train/cat/{number}.png") for number in range(4)]
    assert found == ["=1+1", "cat", "dog", "cat"]
    assert "train/dog/0.png" not in data.train.names
    assert (data.corrected, data.excluded) == (2, 1)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_spreadsheet_may_have_saved_the_table(pets, mark):
    text = f"\ufeffImage{mark}Label\r\ntrain/cat/0.png{mark}dog\r\n{mark}\r\n"
    assert label_of(load_corrected(pets, text), "train/cat/0.png") == "dog"


def test_names_and_labels_that_are_formulas_come_back(pets):
    name = "train/=1+1/0.png"
    text = format_rows([COLUMNS, (name, "train", "=1+1", "dog", "0.9", "-", "")])
    cells = next(csv.reader(io.StringIO(text.decode("utf-8-sig").splitlines()[1])))
    assert not any(cell.startswith(tuple("=+-@")) for cell in cells)
    assert label_of(load_corrected(pets, text), name) == "dog"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"x{text}"), min_size=1))
def test_any_name_comes_back(tmp_path_factory, names):
    for prefix in ("", "'", "=", "''+"):
        file = tmp_path_factory.mktemp("names") / "table.csv"
        file.write_bytes(format_rows([("image", "given"), *((prefix + name, "a") for name in names)]))
        ((_, rows),) = read_corrections(Preparation(labels_from=(str(file),))).tables
        assert [row.image for row in rows] == [prefix + name for name in names]


def test_excluded_images_are_listed_one_per_line_and_splits_stay(pets):
    data = load_corrected(pets, "", "train/cat/0.png\n\ntest/dog/1.png\n")
    assert {"train/cat/0.png", "test/dog/1.png"}.isdisjoint({*data.train.names, *data.test.names})
    assert (len(data.train), len(data.test), data.excluded) == (11, 5, 2)
    whole = load_data(pets).train
    kept = [row for row, name in enumerate(whole.names) if name != "train/cat/0.png"]
    assert np.array_equal(data.train.pixels, whole.pixels[kept])


def test_drawn_splits_do_not_depend_on_corrections(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=pixels, y=np.arange(200) % 2)
    before = load_data(tmp_path / "set.npz")
    wrong = before.train.names[:30]
    (tmp_path / "table.csv").write_text("image,label\n" + "".join(f"{name},1\n" for name in wrong))
    after = load_data(tmp_path / "set.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),)))
    for split, images in before.splits.items():
        assert after.splits[split].names == images.names
    assert after.corrected == sum(before.train.targets[:30] == 0)


def test_copies_of_excluded_images_stay_in_their_split(tmp_path):
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8), 2, axis=0)
    np.savez(tmp_path / "set.npz", x=pixels, y=np.arange(120) // 2 % 2)
    before = load_data(tmp_path / "set.npz", Preparation(test_fraction=0.3))
    splits = {name: split for split, images in before.splits.items() for name in images.names}
    first = sorted(splits)[::2]  # of each two copies
    (tmp_path / "out.txt").write_text("".join(f"{name}\n" for name in first))
    after = load_data(tmp_path / "set.npz", Preparation(test_fraction=0.3, exclude=str(tmp_path / "out.txt")))
    left = {name: split for split, images in after.splits.items() for name in images.names}
    assert left == {name: split for name, split in splits.items() if name not in first}


def test_they_are_part_of_the_fingerprint_and_of_the_cache(pets, tmp_path):
    plain = load_data(pets)
    first = load_corrected(pets, HEAD + "train/cat/0.png,cat,dog,\n")
    second = load_corrected(pets, HEAD + "train/cat/1.png,cat,dog,\n")  # the same file with another content
    assert len({plain.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert label_of(second, "train/cat/0.png") == "cat"
    assert Path(second.preparation.labels_from[0]).is_absolute()


def test_tables_apply_in_turn(pets, tmp_path):
    for number, (old, new) in enumerate((("cat", "dog"), ("dog", "=1+1"))):
        (tmp_path / f"{number}.csv").write_text(HEAD + f"train/cat/0.png,{old},{new},\n")
    data = load_data(pets, Preparation(labels_from=(str(tmp_path / "0.csv"), str(tmp_path / "1.csv"))))
    assert label_of(data, "train/cat/0.png") == "=1+1"


def test_labels_and_yes_or_no_are_corrected(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    labels = np.tile([[True, False], [False, True], [True, True], [False, False]], (5, 1))
    for name, targets, row in (("labels", labels, "label_1: yes,label_1: no"), ("truths", labels[:, 0], "no,yes")):
        np.savez(tmp_path / f"{name}.npz", x_train=pixels, y_train=targets)
        plain = load_data(tmp_path / f"{name}.npz")
        (tmp_path / "table.csv").write_text(f"image,given,likely\n{plain.train.names[1]},{row}\n")
        data = load_data(tmp_path / f"{name}.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),)))
        assert np.argwhere(data.train.targets != plain.train.targets).tolist() == [[1, 1][: targets.ndim]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "train/cat/9.png,cat,dog,\n", "names 1 image that the data set does not have: train/cat/9.png"),
        (HEAD + "train/cat/0.png,cat,dgo,\n", "has the label 'dgo', which is not in the data set. Did you mean dog?"),
        (HEAD + "train/cat/0.png,cat,dog,\n" * 2, "has more than one row for train/cat/0.png. Keep one row"),
        (HEAD, "has no rows, so there is nothing to correct"),
        ("\n", "has no rows, so there is nothing to correct"),
        ("name,class\nx,y\n", "has the columns name, class; expected image, given, likely and action"),
        (HEAD + "train/cat/0.png,cat,dog,delete\n", "has the action 'delete' for train/cat/0.png; it must be"),
        (HEAD + "train/cat/0.png,dog,dog,keep\n", "has the action keep for train/cat/0.png, but its given label"),
        (HEAD + "train/cat/0.png,,,\n", "has no label for train/cat/0.png"),
        (b"image,label\n\xff,cat\n", "the text must be UTF-8"),
    ],
)
def test_what_cannot_be_applied_is_refused(pets, text, message):
    with pytest.raises(DataError) as raised:
        load_corrected(pets, text)
    assert message in str(raised.value)
    assert str(pets.parent / "table.csv") in str(raised.value)


def test_missing_and_empty_files_and_numbers_are_refused(pets, tmp_path):
    with pytest.raises(DataError, match=r"for --labels-from .*No such file or directory. Check the path"):
        load_data(pets, Preparation(labels_from=("nothing.csv",)))
    with pytest.raises(DataError, match="names no images; expected one name per line"):
        load_corrected(pets, "", "image\n")
    with pytest.raises(DataError, match="All 18 images are excluded"):
        names = [name for images in load_data(pets).splits.values() for name in images.names]
        load_corrected(pets, "", "\n".join(names))
    np.savez(tmp_path / "set.npz", x=np.zeros((20, 4, 4), np.uint8), y=np.linspace(0, 1, 20))
    (tmp_path / "table.csv").write_text("image,label\n00000,1\n")
    with pytest.raises(DataError, match="the targets are numbers"):
        load_data(tmp_path / "set.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),)))
