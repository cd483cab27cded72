"""What people give to lamina predict: lists, patterns and all kinds of files."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from support.commands import events, run_lamina
from support.images import encode

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def draw(level: int, kind: str = "PNG") -> bytes:
    return encode(np.full((12, 12, 3), level, np.uint8), kind)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lamina.data.decoding.can_read_heif", lambda: False)
    files = {
        "bright.jpg": draw(200, "JPEG"),
        "in/dark.jfif": draw(20, "JPEG"),
        "in/IMG_1": draw(200),
        "in/a.txt": b"x",
        "in/IMG_2.HEIC": HEIC,
        "in/clip.MOV": b"\0\0\0\x14ftypqt  ",
        "broken.png": b"<html>",
    }
    for name, content in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    with zipfile.ZipFile("p.zip", "w") as archive, tarfile.open("p.tgz", "w:gz") as tar:
        for name, content in files.items():
            archive.writestr(name, content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "t.csv").write_text("name,image\nx,photos/bright.jpg\ny,photos/none.jpg\n")
    return tmp_path


FOLDER = {"bright.jpg": "bright", "in/dark.jfif": "dark"}


PROBLEMS = {
    "in/IMG_2.HEIC": "pip install 'lamina[heif]'",
    "in/clip.MOV": "a video",
    "broken.png": "not an image",
}


CASES = {
    "folder": (["photos"], "photos/", FOLDER, PROBLEMS, "IMG_1, photos/in/a.txt"),
    "pattern of files and folders": (
        ["photos/*"],
        "photos/",
        FOLDER,
        PROBLEMS,
        "IMG_1, photos/in/a.txt",
    ),
    "pattern of files": (
        ["photos/*.*"],
        "photos/",
        {"bright.jpg": "bright"},
        {"broken.png": "not an image"},
        "",
    ),
    "pattern without images": (
        ["photos/in/*.txt"],
        "",
        {},
        {"photos/in/*.txt": "no images found"},
        "a.txt",
    ),
    "pattern of nothing": (["photos/*.gif"], "", {}, {"photos/*.gif": "no image matches"}, ""),
    "list": (["-"], "", {"photos/bright.jpg": "bright", "photos/in/dark.jfif": "dark"}, {}, ""),
    "names in one argument": (["x" * 300], "", {}, {"x" * 300: "file name too long"}, ""),
    "a file without a suffix": (["photos/in/IMG_1"], "", {"photos/in/IMG_1": "bright"}, {}, ""),
    "a text": (["photos/in/a.txt"], "", {}, {"photos/in/a.txt": "not an image"}, ""),
    "a missing file": (["none.jpg"], "", {}, {"none.jpg": "no such file"}, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_each_input_is_predicted_or_named(
    name: str, photos: Path, accurate_run: Path, monkeypatch
) -> None:
    given, prefix, predicted, problems, unused = CASES[name]
    text = io.TextIOWrapper(io.BytesIO(b"photos/bright.jpg\nphotos/in/dark.jfif\n"))
    monkeypatch.setattr(sys, "stdin", text)
    done = run_lamina("predict", accurate_run, *given, "--json")
    printed = events(done.stdout)
    assert {
        event["image"]: event["predicted"] for event in printed if event["event"] == "prediction"
    } == {f"{prefix}{image}": answer for image, answer in predicted.items()}
    named = {event["image"]: event["reason"] for event in printed if event["event"] == "problem"}
    assert named.keys() == {f"{prefix}{image}" for image in problems}
    assert all(reason in named[f"{prefix}{image}"] for image, reason in problems.items())
    assert ("not used: " in done.stderr and unused in done.stderr) == bool(unused)
    assert done.returncode == (2 if problems else 0)


@pytest.mark.parametrize("command", [["evaluate"], ["predict", __file__], ["data"], ["report"]])
def test_a_path_that_is_too_long_is_a_message(command: list[str]) -> None:
    name, *others = command
    done = run_lamina(name, "x" * 300, *others)
    assert done.returncode == 2
    assert re.search(r"file name too long\. Check the path|No run named x{300} in", done.stderr)


def test_an_address_that_cannot_be_is_a_message(accurate_run: Path) -> None:
    done = run_lamina("serve", accurate_run, "--host", "a..b", "--token", "secret")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "lamina: --host is 'a..b', which is not a valid address. Use --host 127.0.0.1.",
    )


def test_names_on_stdin_need_not_be_utf_8(
    photos: Path, accurate_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (b"caf\xe9.png", b"line\x0cfeed.png")
    for name in names:
        Path(os.fsdecode(name)).write_bytes(draw(200))
    text = io.TextIOWrapper(io.BytesIO(b"\n".join(names)), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", text)
    done = run_lamina("predict", accurate_run, "-", "--json")
    assert done.returncode == 0, done.stderr
    assert [event["predicted"] for event in events(done.stdout)] == ["bright", "bright"]
