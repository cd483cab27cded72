"""Which image belongs to which split and class."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Dataset, Images, Preparation, Problem, load_data
from lamina.data.description import describe_data
from lamina.data.inspection import inspect
from lamina.data.load import check_learnable
from lamina.data.preparation import LabelFrom
from lamina.data.sources.class_folders import ADVICE, arrange
from lamina.data.sources.interface import Scan
from lamina.data.sources.scan import scan_folder
from lamina.errors import DataError, LaminaWarning
from support.listed import Listed


def arrange_paths(
    *paths: str, label_from: LabelFrom | None = None, splits: tuple[str, ...] = ()
) -> Listed:
    scan = Scan(Path("/"), sorted(paths), [0] * len(paths))
    return Listed(arrange(scan, Path("pets"), Preparation(label_from=label_from, splits=splits)))


def places(listing: Listed) -> list[tuple[str | None, object, str]]:
    names = [image.name for image in listing.images]
    return list(zip(listing.splits, listing.labels["class"], names, strict=True))


def test_the_class_may_be_the_folder_that_an_image_lies_in() -> None:
    found = places(
        arrange_paths(
            "train/x/cat/1.png", "train/y/dog/2.png", "test/x/cat/3.png", label_from="parent"
        )
    )
    assert found == [
        ("test", "cat", "test/x/cat/3.png"),
        ("train", "cat", "train/x/cat/1.png"),
        ("train", "dog", "train/y/dog/2.png"),
    ]


def test_the_class_may_be_in_the_file_name() -> None:
    assert places(arrange_paths("cat.1.png", "dog.1.png", label_from="filename")) == [
        (None, "cat", "cat.1.png"),
        (None, "dog", "dog.1.png"),
    ]
    assert places(
        arrange_paths("train/cat_1.png", "test/great_dane_2.png", label_from="filename")
    ) == [
        ("test", "great_dane", "test/great_dane_2.png"),
        ("train", "cat", "train/cat_1.png"),
    ]
    listing = arrange_paths("a/cat-1.png", "a/77.png", label_from="filename")
    assert listing.problems == [Problem("a/77.png", "no class in its file name")]


@pytest.mark.parametrize(
    ("paths", "classes", "left_out"),
    [
        (["cat/1.png", "cat/old/2.png", "cat/old/3.png"], {"cat"}, []),
        (["cat/1.png", "cat/2.png", "cat/old/3.png", "cat/new/4.png"], {"cat"}, []),
        (["x/1.png", "x/a/1.png", "x/b/1.png"], {"a", "b"}, ["1.png"]),
        (["x/1.png", "x/y/a/1.png", "x/y/b/1.png"], {"a", "b"}, ["1.png"]),
        (["train/1.png", "train/a/1.png", "train/b/1.png"], {"a", "b"}, ["train/1.png"]),
    ],
)
def test_few_images_beside_several_folders_are_stray(
    paths: list[str], classes: set[str], left_out: list[str]
) -> None:
    listing = arrange_paths(*paths)
    assert {label for _, label, _ in places(listing)} == classes
    assert listing.problems == [Problem(name, "not in a class folder") for name in left_out]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("cat.12.jpg", "cat"),
        ("cat (2).jpg", "cat"),
        ("great_pyrenees_12.jpg", "great_pyrenees"),
        ("Saint-Bernard-3-left.jpg", "Saint-Bernard"),
        ("café7.png", "café"),
        ("barn_owl_left.jpg", "barn_owl"),
        ("a__b.jpg", "a"),
        ("cat.jpg", "cat"),
        ("cat", "cat"),
        ("0001.jpg", None),
        ("_12.jpg", None),
    ],
)
def test_the_name_up_to_the_number_is_the_class(file: str, expected: str | None) -> None:
    listing = arrange_paths(f"folder/{file}", "folder/bird1.jpg", label_from="filename")
    labels = {name: label for _, label, name in places(listing)}
    assert labels.get(f"folder/{file}") == expected


LAYOUT = (
    "Expected a folder of images for each class, or train/, val/ and test/ folders that contain"
    " these."
)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], f"No images in pets. {LAYOUT}"),
        (
            ["1.png", "2.png"],
            (
                f"The images in pets are not in class folders. {LAYOUT} If file names begin with"
                " the class, use --label-from filename (in Python, label_from)."
            ),
        ),
        (
            ["train/a/1.png", "test/a/1.png", "more/a/1.png"],
            (
                "pets is ambiguous: its folders test, train may be splits, classes or neither."
                f" {LAYOUT} {ADVICE}"
            ),
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_rejected(paths: list[str], message: str) -> None:
    with pytest.raises(DataError) as raised:
        arrange_paths(*paths)
    assert str(raised.value) == message


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = hashlib.sha256(
        str(path).encode()
    ).digest()  # another for each, since equal images share a split
    Image.new("RGB", (4, 4), tuple(color[:3])).save(path)


def test_other_files_are_ignored(tmp_path: Path) -> None:
    for name in (
        "a/1.png",
        "a/2.PNG",
        "b/1.JPeG",
        ".git/a/1.png",
        "a/.hidden.png",
        "__MACOSX/a/1.png",
    ):
        save_image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert scan_folder(tmp_path).names == ["a/1.png", "a/2.PNG", "b/1.JPeG"]


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """Its path is longer than the system allows, which holds for root, too."""
    for name in ("a", "b"):
        save_image(tmp_path / name / "1.png")
        save_image(tmp_path / name / "2.png")
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("x" * 200, dir_fd=folder)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    scan = scan_folder(tmp_path)
    assert scan.names == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    ((path, reason),) = [(problem.path, problem.reason) for problem in scan.problems]
    assert (path.count("x" * 200), reason) == (path.count("/") + 1, "file name too long")


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/.git/1.png"):
        save_image(tmp_path / name)
    for folder in ("d", "e/f", "runs/net-1", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "c" / ".DS_Store").touch()
    (tmp_path / "notes" / "notes.txt").touch()
    for name in ("run.json", ".lock"):
        (tmp_path / "runs" / "net-1" / name).touch()
    for _ in range(2):  # the second time from the cache
        data = load_data(tmp_path, Preparation(test_fraction=0.0, val_fraction=0.0))
        assert data.problems == (
            Problem("notes/notes.txt", "not an image file"),
            *(Problem(name, "a folder without images") for name in ("c", "d", "e/f")),
        )
    assert describe_data(data)[-1] == "folders without images: c, d, e/f"
    (finding,) = [one for one in inspect(data).findings if one.kind == "empty-folder"]
    assert (
        finding.message
        == "3 folders have no images, so they are not classes. Add images, or remove them."
    )
    assert [(sighted.split, sighted.name) for sighted in finding.images] == [
        (None, "c"),
        (None, "d"),
        (None, "e/f"),
    ]


def test_an_image_in_two_classes_is_counted_also_in_the_cache(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        save_image(tmp_path / name)
    (tmp_path / "b" / "3.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    for _ in range(2):
        assert load_data(tmp_path, Preparation(test_fraction=0.0, val_fraction=0.0)).conflicts == 1


def test_links_to_images_are_followed_and_to_folders_not(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        save_image(root / name)
    save_image(tmp_path / "other.png")
    (root / "a" / "3.png").symlink_to(tmp_path / "other.png")
    (root / "b" / "3.png").symlink_to(root / "b" / "1.png")
    (root / "c").symlink_to(root / "a")
    (root / "b" / "loop").symlink_to(root)

    with pytest.warns(LaminaWarning) as warned:
        data = load_data(root, Preparation(test_fraction=0.0))

    assert data.problems == (
        Problem("b/loop", "a link to a folder, which lamina does not follow"),
        Problem("c", "a link to a folder, which lamina does not follow"),
    )
    assert len(data.train) == 6
    assert [str(warning.message) for warning in warned] == [
        "Left out 2 images: b/loop (a link to a folder, which lamina does not follow), c (a link to"
        " a folder, which lamina does not follow)"
    ]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["a/1.png", "a/2.png"],
            (
                "has only one class to train on, a. Add images of another class, or choose other"
                " labels with --label-from or --label-column (in Python, label_from or"
                " label_columns)."
            ),
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/c/1.png"],
            "has no training images of c. Add some, or remove the class.",
        ),
        (
            ["test/a/1.png", "val/b/1.png"],
            "has no training images. Add some to train/, or reduce val and test.",
        ),
    ],
)
def test_classes_that_cannot_be_learned_are_rejected(
    paths: list[str], message: str, tmp_path: Path
) -> None:
    for path in paths:
        save_image(tmp_path / path)
    with pytest.raises(DataError) as raised, warnings.catch_warnings(action="ignore"):
        check_learnable(load_data(tmp_path))
    assert (
        str(raised.value).removeprefix(str(tmp_path.parent) + "/") == f"{tmp_path.name} {message}"
    )


@pytest.mark.parametrize(
    ("targets", "what", "noun"),
    [
        (np.zeros((3, 2), bool), "3 training images with the same labels, none", "labels"),
        (np.ones((1, 2), bool), "1 training image with the same labels, x, y", "labels"),
        (
            np.full((4, 2), 0.5, np.float32),
            "4 training images with the same numbers, 0.5, 0.5",
            "numbers",
        ),
    ],
)
def test_targets_that_are_the_same_for_all_images_are_rejected(
    targets: np.ndarray, what: str, noun: str
) -> None:
    names = tuple(f"{place}.png" for place in range(len(targets)))
    train = Images(np.zeros((len(targets), 4, 4, 3), np.uint8), targets, ("x", "y"), names, "train")
    with pytest.raises(DataError) as raised:
        check_learnable(Dataset("set", "0", train))
    assert (
        str(raised.value)
        == f"set has nothing to learn: {what}. Add images with other {noun}, or choose another"
        " column with --label-column (in Python, label_columns)."
    )


def test_a_class_missing_from_a_split_is_warned_of(tmp_path: Path) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
        save_image(tmp_path / path)
    with pytest.warns(LaminaWarning) as warned:
        check_learnable(load_data(tmp_path))
    assert [str(warning.message) for warning in warned] == [
        f"{tmp_path.name}: test has no images of b, so scores on test do not cover it. Add some."
    ]


def test_a_class_without_a_readable_training_image_is_rejected(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        save_image(tmp_path / name)
    (tmp_path / "train" / "b" / "1.png").write_bytes(b"")
    with pytest.raises(DataError) as raised, warnings.catch_warnings(action="ignore"):
        check_learnable(load_data(tmp_path))
    assert (
        str(raised.value)
        == f"{tmp_path.name} has no training images of b. Add some, or remove the class."
    )


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    for folder in (b"caf\xe9", b"tea"):
        path = bytes(tmp_path) + b"/" + folder
        Path(path.decode("utf-8", "surrogateescape")).mkdir()
        for number in (b"1", b"2"):
            Path((path + b"/" + number + b".png").decode("utf-8", "surrogateescape")).write_bytes(
                buffer.getvalue()
            )
    whole = Preparation(test_fraction=0.0, val_fraction=0.0)
    assert load_data(tmp_path, whole).train.target_names == ("caf\\udce9", "tea")


def test_a_folder_is_one_class_whatever_its_name_holds(tmp_path: Path) -> None:
    """Bug 19: ``New York|NY`` became two labels."""
    names = ("New York|NY", "a;b", "no", "yes")
    for name in names:
        for number in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (4, 4), (names.index(name), number, 0)).save(
                tmp_path / name / f"{number}.png"
            )
    images = load_data(tmp_path, Preparation(test_fraction=0.0)).train
    assert (images.kind.name, images.target_names) == ("single-label", names)
    labels = load_data(tmp_path, Preparation(test_fraction=0.0, task="multi-label")).train
    assert (labels.kind.name, labels.target_names) == ("multi-label", names)
