"""Corrected labels and excluded images: a column has the changes; ambiguous ones are refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.cli.output import save_table
from lamina.data import Dataset, Preparation, load_data
from lamina.data.cache import cache_folder
from lamina.data.corrections import COLUMNS, contain_files
from lamina.data.load import find_prepared
from lamina.errors import DataError, LaminaWarning
from lamina.text import guard

HEAD = "image,given,likely,correct\n"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog", "=1+1"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    folder / f"{number}.png"
                )
    return tmp_path / "pets"


def load_corrected(pets: Path, text: str | bytes) -> Dataset:
    file = pets.parent / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_data(pets, Preparation(labels_from=(str(file),)))


def label_of(data: Dataset, name: str) -> str:
    images = data.train if name in data.train.names else data.test
    assert images is not None
    return images.target_names[images.targets[images.names.index(name)]]


def test_only_the_column_correct_is_read(pets):
    rows = (
        "cat/0.png,cat,dog,",  # nothing
        # a stale given label and an unknown likely one do not matter
        "cat/1.png,dog,nonsense,=1+1",
        "cat/2.png,cat,dog,cat",
        "cat/3.png,,,dog",
        "dog/0.png,dog,cat,Exclude",
    )
    data = load_corrected(pets, HEAD + "".join(f"train/{row}\n" for row in rows))
    assert [label_of(data, f"train/cat/{number}.png") for number in range(4)] == [
        "cat",
        "=1+1",
        "cat",
        "dog",
    ]
    assert "train/dog/0.png" not in data.train.names
    effect = data.corrections
    assert (effect.corrected, effect.excluded, effect.unchanged, list(effect.not_found)) == (
        2,
        1,
        1,
        [],
    )
    assert (
        str(effect) == "2 labels corrected, 1 image excluded, 1 entry without a change, 0 not found"
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_spreadsheet_may_have_saved_the_table(pets, mark):
    text = f"\ufeffImage{mark}Correct\r\ntrain/cat/0.png{mark} dog \r\n{mark}\r\n"
    assert label_of(load_corrected(pets, text), "train/cat/0.png") == "dog"


def test_names_and_labels_that_are_formulas_come_back(pets):
    name, file = "train/=1+1/0.png", pets.parent / "saved.csv"
    save_table(file, [COLUMNS, (name, "train", "=1+1", "dog", "0.9", "-", "dog")])
    cells = next(csv.reader(io.StringIO(file.read_text("utf-8-sig").splitlines()[1])))
    assert not any(cell.startswith(tuple("=+-@")) for cell in cells)
    assert label_of(load_corrected(pets, file.read_bytes()), name) == "dog"


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"x{text}"),
        min_size=1,
    )
)
def test_any_name_comes_back(tmp_path_factory, names):
    for prefix in ("", "'", "=", "''+"):
        file = tmp_path_factory.mktemp("names") / "table.csv"
        save_table(file, [("image", "correct"), *((prefix + name, "a") for name in names)])
        ((_, rows),), _ = contain_files(Preparation(labels_from=(str(file),)))
        assert rows == tuple((prefix + name, "a") for name in names)


def test_excluded_images_are_left_out_and_splits_stay(pets):
    data = load_corrected(pets, HEAD + "train/cat/0.png,,,exclude\ntest/dog/1.png,,,exclude\n")
    assert {"train/cat/0.png", "test/dog/1.png"}.isdisjoint({*data.train.names, *data.test.names})
    assert (len(data.train), len(data.test), data.corrections.excluded) == (11, 5, 2)
    whole = load_data(pets).train
    kept = [row for row, name in enumerate(whole.names) if name != "train/cat/0.png"]
    assert np.array_equal(data.train.pixels, whole.pixels[kept])


def write_numbers(folder: Path, count: int = 200) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4), dtype=np.uint8)
    np.savez(folder / "set.npz", x=pixels, y=np.arange(count) % 2)
    return folder / "set.npz"


def test_drawn_splits_do_not_depend_on_corrections(tmp_path):
    data = write_numbers(tmp_path)
    before = load_data(data)
    wrong = before.train.names[:30]
    (tmp_path / "table.csv").write_text(
        "image,correct\n" + "".join(f"{name},1\n" for name in wrong)
    )
    after = load_data(data, Preparation(labels_from=(str(tmp_path / "table.csv"),)))
    for split, images in before.splits.items():
        assert after.splits[split].names == images.names
    assert after.corrections.corrected == sum(before.train.targets[:30] == 0)


def test_images_that_are_gone_are_named_and_counted_each_time(pets):
    text = HEAD + "train/cat/0.png,,,dog\ntrain/cat/gone.png,,,dog\n"
    for _ in range(2):  # the second time from the cache
        with pytest.warns(
            LaminaWarning,
            match=r"Not in the data set, but in its corrections: train/cat/gone\.png\. Use",
        ):
            data = load_corrected(pets, text)
        assert (data.corrections.corrected, list(data.corrections.not_found)) == (
            1,
            ["train/cat/gone.png"],
        )


def test_they_are_part_of_the_fingerprint_and_of_the_cache(pets):
    plain = load_data(pets)
    first = load_corrected(pets, HEAD + "train/cat/0.png,cat,dog,dog\n")
    # the same file with another content
    second = load_corrected(pets, HEAD + "train/cat/1.png,cat,dog,dog\n")
    assert len({plain.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert label_of(second, "train/cat/0.png") == "cat"


def test_a_preparation_outlives_its_files(pets, monkeypatch):
    data = load_corrected(
        pets, HEAD + "train/cat/0.png,cat,dog,dog\ntrain/cat/1.png,cat,,exclude\n"
    )
    (pets.parent / "table.csv").write_text(HEAD + "train/cat/2.png,cat,dog,dog\n")
    stored = Preparation(
        **json.loads(json.dumps(data.preparation.to_json()))
        | {"labels_from": data.preparation.labels_from}
    )
    monkeypatch.chdir("/")
    for again in (load_data(pets, stored), find_prepared(str(pets), stored, data.fingerprint)):
        assert again.fingerprint == data.fingerprint
    for name in ("0.png", "1.png"):
        (pets / "train" / "cat" / name).unlink()
    with pytest.raises(
        DataError, match=r"^The file of --labels-from names no image of the data set"
    ):
        load_data(pets, stored)


def test_tables_apply_in_turn(pets, tmp_path):
    for number, label in enumerate(("dog", "=1+1")):
        (tmp_path / f"{number}.csv").write_text(f"image,correct\ntrain/cat/0.png,{label}\n")
    data = load_data(
        pets, Preparation(labels_from=(str(tmp_path / "0.csv"), str(tmp_path / "1.csv")))
    )
    assert label_of(data, "train/cat/0.png") == "=1+1"
    assert data.corrections.corrected == 1


def test_labels_and_yes_or_no_are_corrected(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    labels = np.tile([[True, False], [False, True], [True, True], [False, False]], (5, 1))
    for name, targets, prefix in (("labels", labels, "label_1: "), ("truths", labels[:, 0], "")):
        np.savez(tmp_path / f"{name}.npz", x_train=pixels, y_train=targets)
        plain = load_data(tmp_path / f"{name}.npz")
        label = f"{prefix}{'no' if plain.train.targets[1].flat[-1] else 'yes'}"
        (tmp_path / "table.csv").write_text(f"image,correct\n{plain.train.names[1]},{label}\n")
        data = load_data(
            tmp_path / f"{name}.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),))
        )
        assert np.argwhere(data.train.targets != plain.train.targets).tolist() == [
            [1, 1][: targets.ndim]
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "train/cat/9.png,,,dog\n",
            "names no image of the data set; the first of 1 is train/cat/9.png. Use",
        ),
        (
            HEAD + "train/cat/0.png,,,dgo\n",
            "has the label 'dgo' for train/cat/0.png, which is not in the data set. Did",
        ),
        (
            HEAD + "train/cat/0.png,,,dog\ntrain/cat/0.png,,,cat\n",
            "has dog and cat for train/cat/0.png. Keep one of",
        ),
        (
            HEAD + "train/cat/0.png,,,dog\ntrain/cat/0.png,,,exclude\n",
            "has dog and exclude for train/cat/0.png. Keep",
        ),
        (
            HEAD + "train/cat/0.png,cat,dog,\n",
            "has no entry in the column correct, so it changes nothing. Write the correct",
        ),
        (HEAD, "has no entry in the column correct"),
        (
            "\n",
            (
                "has the columns (none); it must have image and correct. Write the correct label of"
                " an image"
            ),
        ),
        (
            "image,given,likely,action\nx,a,b,\n",
            "has the columns image, given, likely, action; it must have image and",
        ),
        ("image,correct,Correct\nx,a,b\n", "it must have image and correct"),
        (b"image,correct\n\xff,cat\n", "the text must be UTF-8 (in Excel: CSV UTF-8)"),
    ],
)
def test_what_cannot_be_applied_is_refused(pets, text, message):
    with pytest.raises(DataError) as raised:
        load_corrected(pets, text)
    assert message in str(raised.value)
    assert str(pets.parent / "table.csv") in str(raised.value)


def test_the_same_correction_twice_is_one(pets):
    data = load_corrected(pets, HEAD + "train/cat/0.png,,,dog\n" * 2 + "train/cat/0.png,cat,dog,\n")
    assert (label_of(data, "train/cat/0.png"), data.corrections.corrected) == ("dog", 1)


def test_what_changes_nothing_makes_no_other_copy(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "own-cache"))
    rows = "train/cat/0.png,cat,dog,dog\ntrain/cat/1.png,cat,dog,\ntrain/cat/2.png,,,exclude\n"
    first = load_corrected(pets, HEAD + rows)
    other = "image,correct,note\r\ntrain/cat/0.png,dog,looked at\r\n"
    again = load_corrected(pets, other + '"train/cat/2.png",exclude,\r\n')
    assert again.preparation == first.preparation
    assert len(list(cache_folder().glob("*/pixels"))) == 1
    assert load_data(pets, first.preparation).fingerprint == first.fingerprint


def test_a_stored_preparation_is_the_same_as_json_and_again() -> None:
    pairs = (("a.png", "cat"), ("b.png", "exclude"))
    preparation = Preparation(labels_from=(pairs, "more.csv"), group_from=pairs)
    values = preparation.to_json()
    assert json.loads(json.dumps(values)) == values
    assert Preparation(**values) == preparation


@pytest.mark.parametrize("name", ["a,b", 'a"b', "'=a", "=a", " a "])
def test_names_are_contained_as_they_are(tmp_path, name):
    cell = guard(name).replace('"', '""')
    (tmp_path / "table.csv").write_text(f'image,correct\n"{cell}",dog\n')  # as a spreadsheet saves
    _, contained = contain_files(Preparation(labels_from=(str(tmp_path / "table.csv"),)))
    assert contained.labels_from == (((name, "dog"),),)


def test_a_class_called_exclude_is_ambiguous(pets):
    (pets / "train" / "dog").rename(pets / "train" / "exclude")
    (pets / "test" / "dog").rename(pets / "test" / "exclude")
    with pytest.raises(
        DataError,
        match=r"has exclude for train/cat/0\.png: this word names a class, but also leaves out",
    ):
        load_corrected(pets, HEAD + "train/cat/0.png,,,exclude\n")
    data = load_corrected(pets, HEAD + "train/cat/0.png,,,=1+1\n")
    assert data.corrections.corrected == 1


def test_missing_and_empty_files_and_numbers_are_refused(pets, tmp_path):
    with pytest.raises(
        DataError, match=r"for --labels-from .*No such file or directory. Check the path"
    ):
        load_data(pets, Preparation(labels_from=("nothing.csv",)))
    with pytest.raises(DataError, match="All 18 images are excluded"):
        names = [name for images in load_data(pets).splits.values() for name in images.names]
        load_corrected(pets, HEAD + "".join(f"{name},,,exclude\n" for name in names))
    noise = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    np.savez(tmp_path / "set.npz", x=noise, y=np.linspace(0, 1, 20))
    (tmp_path / "table.csv").write_text("image,correct\n00000,1\n")
    with pytest.raises(DataError, match="The targets are numbers, which lamina cannot correct"):
        load_data(tmp_path / "set.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),)))
    (tmp_path / "table.csv").write_text("image,correct\n00000,exclude\n")
    data = load_data(tmp_path / "set.npz", Preparation(labels_from=(str(tmp_path / "table.csv"),)))
    assert data.corrections.excluded == 1
