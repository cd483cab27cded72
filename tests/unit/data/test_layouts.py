"""Data sets in common layouts are loaded correctly, or refused with a message that helps."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import Preparation, load_data
from lamina.data.cache import cache_folder
from lamina.data.decoding import decode_and_measure
from lamina.data.images import OTHER_FILE, Problem
from lamina.data.splits import find_splits
from lamina.errors import DataError, LaminaWarning
from support.images import encode

pytestmark = pytest.mark.filterwarnings("ignore::lamina.errors.LaminaWarning")


def encode_by_name(name: str, kind: str = "PNG") -> bytes:
    """An image of its own for each name, since lamina keeps identical images in one split."""
    digest = hashlib.sha256(name.encode()).digest()
    image = Image.new("RGB", (8, 8))
    image.putdata(
        [tuple(digest[(3 * place + channel) % 32] for channel in range(3)) for place in range(64)]
    )
    return encode(image, kind)


def names(pattern: str, count: int = 2) -> list[str]:
    """``{train,test}/{cat,dog}/#.png``: every choice, and numbers for ``#``."""
    choices = re.search(r"\{([^{}]*)\}", pattern)
    if choices:
        found = (pattern.replace(choices[0], word, 1) for word in choices[1].split(","))
        return [name for one in found for name in names(one, count)]
    return (
        [pattern.replace("#", str(number)) for number in range(1, count + 1)]
        if "#" in pattern
        else [pattern]
    )


@dataclass(frozen=True)
class Case:
    """Files, with the text of those that are no images, and what lamina should make of them."""

    images: str = ""
    texts: dict[str, str] | None = None
    splits: str = ""  # train 4, test 4
    classes: str = ""
    left_out: int = 0
    refused: str = ""
    path: str = ""
    options: dict[str, object] | None = None


CSV = "image,label\n" + "".join(
    f"{name},{'cat' if number % 2 else 'dog'}\n"
    for number, name in enumerate(names("images/#.png", 8))
)
LABEL_STUDIO = (
    "image,id,choice,annotator,annotation_id,created_at,updated_at,lead_time\n"
    + "".join(
        f"/data/upload/1/{number}.png,{number},{name},1,{number},2026-01-01,2026-01-01,3.5\n"
        for number, name in ((1, "cat"), (2, "dog"))
    )
)
OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence\n001,verification,/m/01,1\n001,verification,/m/02,1\n"
    "002,verification,/m/01,1\n"
)
DRAWN = "train 6, test 2"
CASES: dict[str, Case] = {
    "class folders": Case("{cat,dog}/{a,b}#.png", splits=DRAWN, classes="cat dog"),
    "torchvision ImageFolder": Case(
        "{train,val}/{ants,bees}/#.png", splits="train 4, val 4", classes="ants bees"
    ),
    "Keras cats_and_dogs_filtered": Case(
        "{train,validation}/{cats,dogs}/cat.#.png",
        {"vectorize.py": "x"},
        "train 4, val 4",
        "cats dogs",
        1,
    ),
    "Kaggle brain tumor MRI": Case(
        "{Training,Testing}/{glioma,meningioma,notumor}/Tr_#.png",
        splits="train 6, test 6",
        classes="glioma meningioma notumor",
    ),
    "Kaggle Intel images": Case(
        "{seg_train/seg_train,seg_test/seg_test}/{sea,street}/#.png | seg_pred/seg_pred/#.png",
        splits="train 4, test 4",
        classes="sea street",
        left_out=2,
    ),
    "Kaggle chest X-ray": Case(
        "chest_xray/{train,test,val}/{NORMAL,PNEUMONIA}/#.png",
        splits="train 4, val 4, test 4",
        classes="NORMAL PNEUMONIA",
    ),
    "Kaggle chest X-ray with a copy of itself": Case(
        "x/{train,test}/{NORMAL,PNEUMONIA}/#.png"
        " | x/chest_xray/{train,test}/{NORMAL,PNEUMONIA}/#.png",
        refused="its folders test, train may be splits, classes or neither.*--splits train=FOLDER",
    ),
    "the same, with the splits named": Case(
        "x/{train,test}/{NORMAL,PNEUMONIA}/#.png"
        " | x/chest_xray/{train,test}/{NORMAL,PNEUMONIA}/#.png",
        splits="train 4, test 4",
        classes="NORMAL PNEUMONIA",
        left_out=8,
        options={"splits": ("train=train", "test=test")},
    ),
    "Kaggle ASL alphabet": Case(
        "asl_alphabet_train/asl_alphabet_train/{A,B}/A#.png"
        " | asl_alphabet_test/asl_alphabet_test/{A,B}_test.png",
        splits="train 4",
        classes="A B",
        left_out=2,
        options={"test_fraction": 0.0},
    ),
    "Kaggle dogs vs. cats": Case(
        "train/{cat,dog}.#.png | test1/#.png",
        refused="its folders test1, train may be.*--label-from filename",
    ),
    "Kaggle dogs vs. cats by file name": Case(
        "train/{cat,dog}.#.png | test1/#.png",
        splits="train 4",
        classes="cat dog",
        left_out=2,
        options={"label_from": "filename", "test_fraction": 0.0},
    ),
    "Kaggle PlantVillage": Case(
        "plantvillage dataset/{color,grayscale,segmented}/{Apple___scab,Apple___rust}/#.png",
        refused="its folders color, grayscale, segmented may be.*--splits train=FOLDER",
    ),
    "Kaggle PlantVillage, one of them": Case(
        "plantvillage dataset/{color,grayscale,segmented}/{Apple___scab,Apple___rust}/#.png",
        splits="train 4",
        classes="Apple___rust Apple___scab",
        left_out=8,
        options={"splits": ("train=color",), "test_fraction": 0.0},
    ),
    "Kaggle COVID-19 radiography with masks": Case(
        "{COVID,Normal}/{images,masks}/#.png | COVID.metadata.png",
        refused="its folders COVID, Normal may be.*--label-from folder",
    ),
    "Kaggle fruits 360": Case(
        "fruits-360/{Training,Test}/{Apple Red 1,Banana}/#.png"
        " | fruits-360/test-multiple_fruits/#.png",
        refused="its folders Test, Training, test-multiple_fruits may be.*--splits train=FOLDER",
    ),
    "Kaggle leaf splits with an unknown name": Case(
        "{train,extra}/{oak,elm}/#.png",
        refused="its folders train may be splits.*--splits train=FOLDER",
    ),
    "holdout": Case("{train,holdout}/{oak,elm}/#.png", splits="train 4, test 4", classes="elm oak"),
    "prefixes and suffixes": Case(
        "{2024_TrainSet,2024_ValSet,2024_TestSet}/{oak,elm}/#.png",
        splits="train 4, val 4, test 4",
        classes="elm oak",
    ),
    "Food-5K": Case(
        "{training,validation,evaluation}/{0,1}/#.png",
        refused="its folders evaluation, training, validation may be.*--splits train=FOLDER",
    ),
    "Food-5K, with the splits named": Case(
        "{training,validation,evaluation}/{0,1}/#.png",
        splits="train 4, val 4, test 4",
        classes="0 1",
        options={"splits": ("train=training", "val=validation", "test=evaluation")},
    ),
    "train, eval and test": Case(
        "{train,eval,test}/{a,b}/#.png", splits="train 4, val 4, test 4", classes="a b"
    ),
    "two unnamed parts": Case(
        "{part_a,part_b}/{oak,elm}/#.png", refused="its folders part_a, part_b may be"
    ),
    "splits inside the classes": Case(
        "{cat,dog}/{train,test}/#.png", refused="its folders cat, dog may be.*--label-from folder"
    ),
    "MVTec AD, one category": Case(
        "{train/good,test/good,test/broken,ground_truth/broken}/#.png",
        refused="its folders test, train may be",
    ),
    "MVTec AD, all categories": Case(
        "{bottle,cable}/{train/good,test/good,ground_truth/bad}/#.png",
        refused="its folders bottle, cable may be",
    ),
    "classes with subfolders of their own": Case(
        "flowers/{rose/red,rose/white,tulip/old}/#.png",
        splits="train 5, test 1",
        classes="rose tulip",
    ),
    "one folder with subfolders of its own among the classes": Case(
        "{rose/red,rose/white,tulip}/#.png | tulip/{a,b}.png",
        splits="train 6, test 2",
        classes="rose tulip",
    ),
    "a figure in a folder beside the folder of classes": Case(
        "data/{cat,dog}/#.png | docs/fig.png",
        refused="its folders data may be.*--splits train=FOLDER",
    ),
    "the same, with the folder of classes named": Case(
        "data/{cat,dog}/#.png | docs/fig.png",
        splits="train 3, test 1",
        classes="cat dog",
        left_out=1,
        options={"splits": ("train=data",)},
    ),
    "the same, with the outermost folders as classes": Case(
        "data/{cat,dog}/#.png | docs/fig.png",
        splits="train 4, test 1",
        classes="data docs",
        options={"label_from": "folder"},
    ),
    "a class called train": Case(
        "{train,bus,car}/#.png", refused="its folders train may be.*--label-from folder"
    ),
    "classes with test in their names": Case(
        "{stress_test,blood_test,ecg}/#.png",
        refused="its folders blood_test, stress_test may be.*--label-from folder",
    ),
    "the same, as classes": Case(
        "{stress_test,blood_test,ecg}/#.png",
        splits="train 5, test 1",
        classes="blood_test ecg stress_test",
        options={"label_from": "folder"},
    ),
    "Roboflow folder": Case(
        "{train,valid,test}/{ok,broken}/a_png.rf.#.png",
        {"README.roboflow.txt": "x", "README.dataset.txt": "x"},
        "train 4, val 4, test 4",
        "broken ok",
        2,
    ),
    "Roboflow multi-label": Case(
        "{train,valid}/#.png",
        {"train/_classes.csv": "filename, cat, dog\n1.png, 1, 0\n2.png, 0, 1\n"},
        refused="its folders train, valid may be",
    ),
    "Roboflow multi-label, its table": Case(
        "{train,valid}/#.png",
        {"train/_classes.csv": "filename, cat, dog\n1.png, 1, 0\n2.png, 0, 1\n"},
        "train 2",
        "cat dog",
        path="train/_classes.csv",
        options={"label_columns": ("cat", "dog"), "test_fraction": 0.0},
    ),
    "Roboflow YOLO": Case(
        "{train,valid}/images/#.png",
        {"train/labels/1.txt": "0 .5 .5 1 1", "data.yaml": "nc: 1"},
        refused="are not in class folders",
    ),
    "Ultralytics YOLO": Case(
        "images/{train,val}/#.png",
        {"labels/train/1.txt": "0 .5 .5 1 1"},
        refused="its folders train, val may be",
    ),
    "COCO": Case(
        "{train2017,val2017}/#.png",
        {"annotations/instances_train2017.json": "{}"},
        refused="its folders train2017, val2017 may be",
    ),
    "CVAT ImageNet": Case(
        "cat/cat_{1,2,3,4}.png | dog/dog_{1,2,3,4}.png", splits=DRAWN, classes="cat dog"
    ),
    "CVAT Ultralytics classification": Case(
        "{train,val}/{cat,dog}/#.png",
        {"train/labels.json": "{}", "val/labels.json": "{}"},
        "train 4, val 4",
        "cat dog",
        2,
    ),
    "CVAT for images": Case(
        "images/#.png", {"annotations.xml": "<annotations/>"}, refused="are not in class folders"
    ),
    "Label Studio CSV": Case(
        "#.png",
        {"project-1.csv": LABEL_STUDIO},
        path="project-1.csv",
        refused="named like label or class.*--label-column",
    ),
    "Label Studio CSV, its column named": Case(
        "#.png",
        {"project-1.csv": LABEL_STUDIO},
        path="project-1.csv",
        refused="no such file.*Write paths relative to",
        options={"label_columns": ("choice",)},
    ),
    "Label Studio CSV, paths cut to file names": Case(
        "#.png",
        {"project-1.csv": LABEL_STUDIO.replace("/data/upload/1/", "")},
        "train 2",
        "cat dog",
        path="project-1.csv",
        options={"label_columns": ("choice",), "test_fraction": 0.0},
    ),
    "Google Takeout": Case(
        "Google Photos/{Cats,Dogs}/IMG_{1,2,3,4}.png",
        {f"Google Photos/Cats/IMG_{n}.png.json": "{}" for n in (1, 2)}
        | {"archive_browser.html": "<html>"},
        DRAWN,
        "Cats Dogs",
        3,
    ),
    "MedMNIST as folders": Case(
        "{train,val,test}/{0,1,10}/#.png", splits="train 6, val 6, test 6", classes="0 1 10"
    ),
    "Hugging Face imagefolder": Case(
        "folder/{train,test}/{dog,cat}/#.png", splits="train 4, test 4", classes="cat dog"
    ),
    "Hugging Face imagefolder with metadata": Case(
        "{train,test}/#.png",
        {
            f"{split}/metadata.csv": "file_name,label\n1.png,cat\n2.png,dog\n"
            for split in ("train", "test")
        },
        "train 2, test 2",
        "cat dog",
    ),
    "Hugging Face imagefolder with JSON lines": Case(
        "{train,test}/#.png",
        {
            f"{split}/metadata.jsonl": (
                '{"file_name":"1.png","label":"cat"}\n{"file_name":"2.png","label":"dog"}\n'
            )
            for split in ("train", "test")
        },
        "train 2, test 2",
        "cat dog",
    ),
    "table beside the images": Case(
        "images/{1,2,3,4,5,6,7,8}.png",
        {"labels.csv": CSV},
        refused=r"labels\.csv has the labels, use .*labels\.csv",
    ),
    "table": Case(
        "images/{1,2,3,4,5,6,7,8}.png", {"labels.csv": CSV}, DRAWN, "cat dog", path="labels.csv"
    ),
    "table with other names of splits": Case(
        "{1,2,3,4}.png",
        {
            "t.csv": "image,label,split\n"
            "1.png,cat,Training\n2.png,dog,Training\n3.png,cat,Test\n4.png,dog,Test\n"
        },
        "train 2, test 2",
        "cat dog",
        path="t.csv",
    ),
    "Open Images": Case(
        "00#.png",
        {"train-annotations-human-imagelabels.csv": OPEN_IMAGES},
        refused="--image-column.*are ImageID",
        path="train-annotations-human-imagelabels.csv",
    ),
    "Open Images, columns named": Case(
        "00#.png",
        {"t.csv": OPEN_IMAGES},
        path="t.csv",
        options={"image_column": "ImageID", "label_columns": ("LabelName",)},
        refused=r"1 image has several rows with different labels: 001\S* \(/m/01 in row 1, /m/02 in"
        ".*--task multi-label",
    ),
    "Open Images as labels": Case(
        "00#.png",
        {"t.csv": OPEN_IMAGES},
        splits="train 2",
        classes="/m/01 /m/02",
        path="t.csv",
        options={
            "image_column": "ImageID",
            "label_columns": ("LabelName",),
            "task": "multi-label",
            "test_fraction": 0.0,
        },
    ),
    "table with an empty label": Case(
        "{1,2,3}.png",
        {"t.csv": "image,label\n1.png,cat\n2.png,dog\n3.png,\n"},
        splits="train 2",
        classes="cat dog",
        left_out=1,
        path="t.csv",
        options={"test_fraction": 0.0},
    ),
    "table with a missing file": Case(
        "#.png",
        {"t.csv": "image,label\n1.png,cat\n2.png,dog\n3.png,cat\n"},
        splits="train 2",
        classes="cat dog",
        left_out=1,
        path="t.csv",
        options={"test_fraction": 0.0},
    ),
    "Kaggle HAM10000: identifiers": Case(
        "HAM_part_1/{ISIC_1,ISIC_2}.png | HAM_part_2/{ISIC_3,ISIC_4}.png",
        {"HAM.csv": "image_id,dx\nISIC_1,nv\nISIC_2,mel\nISIC_3,nv\nISIC_4,mel\n"},
        splits="train 4",
        classes="mel nv",
        path="HAM.csv",
        options={"image_column": "image_id", "label_columns": ("dx",), "test_fraction": 0.0},
    ),
    "Kaggle CIFAR-10: numbers": Case(
        "train/{1,2,3,4}.png",
        {"trainLabels.csv": "id,label\n1,frog\n2,truck\n3,truck\n4,frog\n"},
        splits="train 4",
        classes="frog truck",
        path="trainLabels.csv",
        options={"image_column": "id", "test_fraction": 0.0},
    ),
    "photographs of a kind that lamina does not read": Case(
        "{cat,dog}/#.dng",
        refused=r"No images in .*, but cat/1.dng \(a camera's raw file; convert it",
    ),
    "flat folder": Case("#.png", refused="are not in class folders"),
    "one folder around everything, and a cover": Case(
        "archive/data/{cat,dog}/{a,b}#.png | cover.png", splits=DRAWN, classes="cat dog", left_out=1
    ),
    "unlabeled images beside classes": Case(
        "{cat,dog,unlabeled}/#.png",
        refused="its folders unlabeled may be.*--label-from folder.*Move images without classes",
    ),
    "unlabeled images beside classes, as a class": Case(
        "{cat,dog,unlabeled}/#.png",
        splits="train 5, test 1",
        classes="cat dog unlabeled",
        options={"label_from": "folder"},
    ),
    "images to predict beside classes": Case(
        "{cat,dog,predict}/#.png", refused="its folders predict may be"
    ),
    "the same, by an abbreviation and in capitals": Case(
        "{cat,dog,Pred}/#.png", refused="its folders Pred may be"
    ),
    "test images without classes beside classes": Case(
        "{cat,dog,test}/#.png",
        refused="its folders test may be.*Move images without classes",
    ),
    "the same, with a number": Case("{cat,dog,test1}/#.png", refused="its folders test1 may be"),
    "labeled and unlabeled": Case(
        "labeled/{a,b}/#.png | unlabeled/#.png",
        refused="its folders unlabeled may be.*--splits train=FOLDER",
    ),
    "labeled and unlabeled by the innermost folder": Case(
        "labeled/{a,b}/#.png | unlabeled/#.png",
        refused="its folders unlabeled may be.*--splits train=FOLDER",
        options={"label_from": "parent"},
    ),
    "labeled and unlabeled, with the split named": Case(
        "labeled/{a,b}/#.png | unlabeled/#.png",
        splits="train 4",
        classes="a b",
        left_out=2,
        options={"splits": ("train=labeled",), "test_fraction": 0.0},
    ),
    "train with classes, and unlabeled images": Case(
        "train/{a,b}/#.png | unlabeled/#.png",
        splits="train 4",
        classes="a b",
        left_out=2,
        options={"test_fraction": 0.0},
    ),
    "unlabeled images among the classes of a split": Case(
        "train/{a,b,unlabeled}/#.png | test/{a,b}/#.png",
        refused="its splits contain unlabeled.*--label-from folder",
    ),
    "the same, as a class": Case(
        "train/{a,b,unlabeled}/#.png | test/{a,b}/#.png",
        splits="train 6, test 4",
        classes="a b unlabeled",
        options={"label_from": "folder"},
    ),
    "stray image beside the class folders": Case(
        "{cat,dog}/{a,b}#.png | cover.png", splits=DRAWN, classes="cat dog", left_out=1
    ),
    "stray image in the folder around everything": Case(
        "photos/{cat,dog}/{a,b}#.png | photos/cover.png",
        splits=DRAWN,
        classes="cat dog",
        left_out=1,
    ),
    "stray images in two folders around everything": Case(
        "archive/photos/{cat,dog}/{a,b}#.png | archive/cover.png | archive/photos/cover.png",
        splits=DRAWN,
        classes="cat dog",
        left_out=2,
    ),
    "stray images around and in splits": Case(
        "photos/{train,test}/{cat,dog}/#.png | photos/{a,train/b}.png",
        splits="train 4, test 4",
        classes="cat dog",
        left_out=2,
    ),
    "stray image beside a split in itself": Case(
        "{seg_train/seg_train,seg_test/seg_test}/{sea,street}/#.png | seg_train/cover.png",
        splits="train 4, test 4",
        classes="sea street",
        left_out=1,
    ),
    "files of Windows and macOS": Case(
        "{cat,dog}/{a,b}#.png",
        {"cat/Thumbs.db": "x", "dog/desktop.ini": "", ".DS_Store": "x", "__MACOSX/a.png": ""},
        DRAWN,
        "cat dog",
    ),
}


def write(case: Case, folder: Path) -> Path:
    files = {
        name: encode_by_name(name)
        for pattern in case.images.split(" | ")
        for name in names(pattern)
    }
    files |= {name: text.encode() for name, text in (case.texts or {}).items()}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / case.path


@pytest.mark.parametrize("name", CASES)
def test_each_layout_is_read_right_or_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = write(case, tmp_path / "data")
    preparation = Preparation(**(case.options or {}))  # type: ignore[arg-type]
    if case.refused:
        with pytest.raises(DataError, match=case.refused):
            load_data(path, preparation)
        return
    data = load_data(path, preparation)
    counts = ", ".join(
        f"{split} {len(images)}" for split, images in data.splits.items() if len(images)
    )
    assert (counts, " ".join(data.train.target_names)) == (case.splits, case.classes)
    assert len(data.problems) == case.left_out


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    case = CASES["Kaggle Intel images"]
    folder = write(case, tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, f"data/{path.relative_to(folder)}")
    both = [load_data(path) for path in (folder, tmp_path / "data.zip")]
    assert both[0].fingerprint == both[1].fingerprint
    assert Counter(problem.reason for problem in both[1].problems) == {
        "in a folder that is not a split": 2
    }


def test_a_file_that_is_not_used_does_not_decode_the_images_again(tmp_path: Path) -> None:
    folder = write(CASES["class folders"], tmp_path / "data")
    load_data(folder)
    stamps = {file: file.stat().st_mtime_ns for file in cache_folder().rglob("pixels")}
    (folder / "notes.txt").write_text("new")
    assert load_data(folder).problems == (Problem("notes.txt", OTHER_FILE),)
    (folder / "notes.txt").unlink()
    assert load_data(folder).problems == ()
    assert {file: file.stat().st_mtime_ns for file in cache_folder().rglob("pixels")} == stamps
    (folder / "cat" / "new.png").write_bytes(encode_by_name("new"))
    assert sum(map(len, load_data(folder).splits.values())) == 9


FORMATS = {
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".JPG": "JPEG",
    ".png": "WEBP",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".bmp": "BMP",
}
OTHERS = {
    "notes.txt": (b"P1 is not an image", OTHER_FILE),
    "main.py": (b"import this", OTHER_FILE),
    "photo": (encode_by_name("photo"), OTHER_FILE),
    "photo.dat": (encode_by_name("photo"), OTHER_FILE),
    "logo.svg": (b"<svg></svg>", "an image of a kind that lamina does not read; convert it to PNG"),
    "scan.dcm": (bytes(128) + b"DICM", "a medical image; convert its slices to PNG"),
    "scan.png": (bytes(128) + b"DICM", "a medical image; convert its slices to PNG"),
    "IMG_1.DNG": (b"II*\0" + bytes(100), "a camera's raw file; convert it to JPEG or TIFF"),
    "IMG_1.MOV": (b"\0\0\0\x14ftypqt  ", "a video; extract its frames as images"),
    "design.psd": (b"8BPS", "an image of a kind that lamina does not read; convert it to PNG"),
    "paper.pdf": (b"%PDF-1.7", "a PDF; export its pages as images"),
    "broken.jp2": (b"<html>", "not an image"),
}


def test_images_are_found_by_suffix_and_all_else_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for suffix, kind in FORMATS.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"1{kind}{suffix}").write_bytes(
                encode_by_name(f"{name}{suffix}", kind)
            )
    for name, (content, _) in OTHERS.items():
        (tmp_path / "a" / name).write_bytes(content)
    data = load_data(tmp_path)
    assert sum(map(len, data.splits.values())) == 2 * len(FORMATS)
    assert {problem.path: problem.reason for problem in data.problems} == {
        f"a/{name}": reason for name, (_, reason) in OTHERS.items()
    }


def test_heic_is_read_with_its_extra_and_named_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encode_by_name(name))
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(head)
    (tmp_path / "a" / "IMG_2.jpg").write_bytes(head)  # as some phones send it
    monkeypatch.setattr("lamina.data.decoding.can_read_heif", lambda: False)
    with pytest.warns(LaminaWarning, match=r"Left out 2 images.*pip install 'lamina\[heif\]'"):
        load_data(tmp_path)


def test_a_photo_of_an_iphone_is_decoded_upright() -> None:
    pytest.importorskip("pi_heif")
    pixels, *stored = decode_and_measure(Path(__file__).with_name("phone.heic").read_bytes())
    assert (pixels.shape, stored) == ((64, 32, 3), [64, 32])
    # red above blue, turned by its EXIF
    assert np.abs(pixels[2, 2].astype(int) - (200, 30, 30)).max() < 4
    assert np.abs(pixels[-2, 2].astype(int) - (20, 40, 220)).max() < 4


@pytest.mark.parametrize(
    "names", [["seg_train", "TrainingSet", "images-train", "train2017", "2_TRAIN"]]
)
def test_splits_are_words_in_names(names: list[str]) -> None:
    assert set(find_splits(names).values()) == {"train"}
    assert (
        find_splits(["terrain", "constraint", "latest", "contest", "interval", "train_val", "cat"])
        == {}
    )
    assert find_splits(["eval_2", "seg_pred"]) == {"eval_2": "val", "seg_pred": None}
