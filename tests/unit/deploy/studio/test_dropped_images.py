"""Images that the page sends: only pixels are stored, and only in folders that the studio made."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from lamina.data.decoding import decode_image, read_file
from lamina.deploy.studio import dropped_images
from lamina.deploy.studio.data_folder import MARK, DataFolder
from lamina.deploy.studio.dropped_images import (
    LISTED,
    delete_class,
    list_images,
    remove_image,
    rename_class,
    save_image,
)
from lamina.errors import DataError
from support.images import encode, noise
from support.servers import HOSTILE_FILES

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PNG = encode(noise(5, 9))


def open_folder(path: Path) -> DataFolder:
    return DataFolder(path, path / "runs")


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_stored_pixels_are_those_of_the_image(tmp_path):
    pixels = noise(5, 9)
    saved = save_image(open_folder(tmp_path), "pets", "cat", encode(pixels))
    assert (saved["file"], saved["count"], saved["source"]) == (
        "0001.png",
        1,
        str(tmp_path / "pets"),
    )
    np.testing.assert_array_equal(decode_image(read_file(tmp_path / "pets/cat/0001.png")), pixels)
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.ImageDescription] = 6, "a secret place"
    photo = encode(noise(40, 30), "JPEG", exif=tags)
    assert save_image(open_folder(tmp_path), "pets", "cat", photo)["file"] == "0002.png"
    stored = read_file(tmp_path / "pets/cat/0002.png")
    np.testing.assert_array_equal(decode_image(stored), decode_image(photo))  # upright
    assert decode_image(stored).shape == (30, 40, 3)
    assert b"secret" not in stored
    assert save_image(open_folder(tmp_path), "pets", "dog", encode(pixels))["count"] == 1


@pytest.mark.parametrize(
    ("height", "width", "stored"), [(1080, 720, (768, 512)), (300, 2000, (300, 2000))]
)
def test_the_shorter_side_has_at_most_512_pixels(tmp_path, height, width, stored):
    save_image(open_folder(tmp_path), "pets", "cat", encode(noise(height, width), "BMP"))
    assert decode_image(read_file(tmp_path / "pets/cat/0001.png")).shape[:2] == stored


def test_a_polyglot_loses_its_markup(tmp_path):
    polyglot = (
        encode(noise(5, 9), "GIF", comment=b"<script>alert(1)</script>")
        + b"<html><script>alert(2)</script>"
    )
    save_image(open_folder(tmp_path), "pets", "cat", polyglot)
    stored = read_file(tmp_path / "pets/cat/0001.png")
    assert b"script" not in stored
    np.testing.assert_array_equal(decode_image(stored), decode_image(polyglot))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SVG, "not an image"),
        (HOSTILE_FILES["cut"], "truncated"),
        (HOSTILE_FILES["bomb"], "more than 67 megapixels"),
    ],
    ids=["svg", "cut", "bomb"],
)
def test_what_is_no_image_is_refused_and_the_next_is_saved(tmp_path, data, reason):
    with pytest.raises(DataError, match=f"^not saved: .*({reason}).*\\.$"):
        save_image(open_folder(tmp_path), "pets", "cat", data)
    assert list_files(tmp_path) == []
    assert save_image(open_folder(tmp_path), "pets", "cat", PNG)["count"] == 1


HOSTILE = (
    *(
        "",
        " ",
        ".",
        "..",
        ".hidden",
        "a/b",
        "..\\b",
        "/etc",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "\ud800",
        "C:",
        "x" * 61,
    ),
    *("con", "LPT1.txt", "dot.", "Thumbs.db", "__MACOSX", "train", "Test", "validation"),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path, name):
    for names in ((name, "cat"), ("pets", name)):
        with pytest.raises(DataError, match=r"Use (another name|1 to 60 letters)"):
            save_image(open_folder(tmp_path), *names, PNG)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=8), st.text(max_size=8))
def test_no_names_lead_out_of_the_folder(set_name, class_name):
    with tempfile.TemporaryDirectory() as place:
        outside = Path(place)
        folder = outside / "a" / "b" / "c" / "d" / "e" / "f"
        folder.mkdir(parents=True)
        try:
            source = Path(save_image(open_folder(folder), set_name, class_name, PNG)["source"])
        except DataError:
            assert list_files(outside) == []
        else:
            assert source.parent == folder
            (images,) = (path for path in source.iterdir() if path.is_dir())
            files = [f"{source.name}/{MARK}", f"{source.name}/{images.name}/0001.png"]
            assert list_files(folder) == sorted(files)
            assert len(list_files(outside)) == 2


def test_equal_letters_are_one_class(tmp_path):
    save_image(open_folder(tmp_path), "pets", "caf\u00e9", PNG)
    assert save_image(open_folder(tmp_path), "pets", " cafe\u0301", PNG)["count"] == 2


def test_names_that_differ_in_case_or_letter_forms_do_not_merge(tmp_path):
    save_image(open_folder(tmp_path), "pets", "cat", PNG)
    for names in (("pets", "Cat"), ("PETS", "cat"), ("pets", "\uff43at")):
        with pytest.raises(DataError, match="There is already"):
            save_image(open_folder(tmp_path), *names, PNG)
    assert list_files(tmp_path) == [f"pets/{MARK}", "pets/cat/0001.png"]


def test_a_class_is_renamed_emptied_and_deleted_with_its_folder(tmp_path):
    for name in ("cat", "cat", "dog"):
        save_image(open_folder(tmp_path), "pets", name, PNG)
    rename_class(open_folder(tmp_path), "pets", "cat", "Cat")  # the same but for case
    rename_class(open_folder(tmp_path), "pets", "new", "other")  # without images yet
    for name in ("dog", "Dog"):
        with pytest.raises(DataError, match="There is already dog"):
            rename_class(open_folder(tmp_path), "pets", "Cat", name)
    assert [found["name"] for found in list_images(open_folder(tmp_path), "pets")["classes"]] == [
        "Cat",
        "dog",
    ]
    assert remove_image(open_folder(tmp_path), "pets", "dog", "0001.png") == 0
    assert [path.name for path in (tmp_path / "pets").iterdir() if path.is_dir()] == ["Cat"]
    (tmp_path / "pets/Cat/notes.txt").touch()
    delete_class(open_folder(tmp_path), "pets", "Cat")
    assert list_files(tmp_path) == [f"pets/{MARK}", "pets/Cat/notes.txt"]
    (tmp_path / "pets/Cat/notes.txt").unlink()
    delete_class(open_folder(tmp_path), "pets", "Cat")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_the_studio_did_not_make_stay_as_they_are(tmp_path):
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/0001.png").write_bytes(PNG)
    (tmp_path / "file").touch()
    save_image(open_folder(tmp_path), "pets", "cat", PNG)
    (tmp_path / "link").symlink_to(tmp_path / "pets")
    (tmp_path / "pets/out").symlink_to(tmp_path / "photos/cat")
    before = list_files(tmp_path)
    for names in (
        ("photos", "cat"),
        ("photos", "new"),
        ("file", "cat"),
        ("link", "cat"),
        ("pets", "out"),
    ):
        with pytest.raises(DataError, match="already exists, but the studio did not create it"):
            save_image(open_folder(tmp_path), *names, PNG)
        with pytest.raises(DataError, match="the studio did not create it"):
            remove_image(open_folder(tmp_path), *names, "0001.png")
    assert list_files(tmp_path) == before
    for name in (f"../../{before[0]}", MARK, "0001.PNG", "1.png", "../cat/0001.png"):
        with pytest.raises(DataError, match="has no image"):
            remove_image(open_folder(tmp_path), "pets", "cat", name)
    assert list_files(tmp_path) == before


def test_the_number_of_a_removed_image_is_not_used_again(tmp_path):
    for _ in range(3):
        save_image(open_folder(tmp_path), "pets", "cat", PNG)
    assert remove_image(open_folder(tmp_path), "pets", "cat", "0002.png") == 2
    assert (
        remove_image(open_folder(tmp_path), "pets", "cat", "0002.png") == 2
    )  # twice, as two pages might
    assert save_image(open_folder(tmp_path), "pets", "cat", PNG)["file"] == "0004.png"


def test_a_set_is_listed_to_be_changed_and_others_are_refused(tmp_path):
    assert list_images(open_folder(tmp_path), "pets")["classes"] == []
    saved = [save_image(open_folder(tmp_path), "pets", "dog", PNG) for _ in range(LISTED + 1)]
    save_image(open_folder(tmp_path), "pets", "cat", encode(noise(9, 5)))
    found = list_images(open_folder(tmp_path), "pets")
    assert found["source"] == saved[0]["source"]
    assert [(one["name"], one["count"], len(one["images"])) for one in found["classes"]] == [
        ("cat", 1, 1),
        ("dog", LISTED + 1, LISTED),
    ]
    assert found["classes"][1]["images"] == [
        {name: one[name] for name in ("file", "png")} for one in saved[1:]
    ]
    (tmp_path / "pets/cat/0001.png").write_bytes(b"text")  # reading the set says that it is damaged
    cat = list_images(open_folder(tmp_path), "pets")["classes"][0]
    assert (cat["name"], cat["count"], cat["images"]) == ("cat", 1, [])
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "pets")
    for name in ("photos", "link"):
        with pytest.raises(DataError, match="the studio did not create it"):
            list_images(open_folder(tmp_path), name)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path, monkeypatch):
    save_image(open_folder(tmp_path), "pets", "cat", PNG)
    before = list_files(tmp_path)

    def fill(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(dropped_images, "write_atomically", fill)
        with pytest.raises(DataError, match=r"No space left on device. Free some space"):
            save_image(open_folder(tmp_path), "pets", "cat", PNG)
    assert list_files(tmp_path) == before
    assert save_image(open_folder(tmp_path), "pets", "cat", PNG)["count"] == 2
