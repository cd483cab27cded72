"""What lamina predict takes for images, and what its output file is after an error."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from lamina.cli import main
from support.commands import events, run_lamina, run_refused, run_well
from support.runs import DATA, full_disk, start


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not trained: what it predicts does not matter here."""
    made, training = start(tmp_path_factory.mktemp("runs"))
    made.folder.save_model(training.model)
    return made.path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in folders, beside what is none."""
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(
        ("2.png", "1.PNG", "in/3.png", "in/deep/4.png", "[5].png", "=6.png")
    ):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DATA.test.pixels[place]).save(file)
    (tmp_path / "photos/in/notes.txt").write_text("no image")
    (tmp_path / "photos/.hidden.png").write_bytes(b"hidden")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_what_names_no_image_is_reported_beside_predictions(photos, run):
    printed = run_lamina(
        "predict", run, "empty", "photos/2.png", "none/*.png", "gone.png", "--json"
    )
    assert printed.returncode == 2
    reasons = {event["image"]: event.get("reason") for event in events(printed.stdout)}
    assert reasons == {
        "empty": "no images found",
        "none/*.png": "no image matches this pattern",
        "photos/2.png": None,
        "gone.png": "no such file or directory",
    }
    for name, reason in reasons.items():
        assert (f"lamina: {name}: {reason}\n" in printed.stderr) == (reason is not None)


def test_a_table_without_rows_has_no_header(photos, run):
    printed = run_lamina("predict", run, "none/*.png")
    assert (printed.returncode, printed.stdout) == (2, "")


def test_names_stay_as_they_are_in_a_table(photos, run):
    (photos / 'a "b", c\nd.png').write_bytes((photos / "photos/2.png").read_bytes())
    os.rename(photos / "photos/1.PNG", os.fsencode(photos) + b"/photos/caf\xe9.png")  # noqa: PTH104
    run_well("predict", run, "photos", 'a "b", c\nd.png', "--output", "predictions.csv")
    with (photos / "predictions.csv").open(newline="", encoding="utf-8") as opened:
        names = [row[0] for row in csv.reader(opened)][1:]
    assert names == [
        "photos/2.png",
        "photos/=6.png",
        "photos/[5].png",
        "photos/caf\\udce9.png",
        "photos/in/3.png",
        "photos/in/deep/4.png",
        'a "b", c\nd.png',
    ]


def test_a_file_that_is_replaced_is_named(photos, run):
    first = run_well("predict", run, "photos/2.png", "--output", "predictions.csv")
    second = run_well("predict", run, "photos/2.png", "--output", "predictions.csv")
    assert "replaced" not in first.stderr
    assert "predictions.csv: the earlier file was replaced\n" in second.stderr


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "predictions.xlsx",
            "; it must end in .csv or .tsv or .jsonl. Use --output predictions.csv.",
        ),
        (
            "none/predictions.csv",
            ", but the folder none does not exist. Create it, or use another folder.",
        ),
        ("folder.csv", ", which is a folder. Use --output folder.csv/output.csv."),
        (".", ", which is a folder. Use --output output.csv."),
    ],
)
def test_a_file_that_cannot_be_written_is_rejected_first(photos, run, capsys, output, message):
    (photos / "folder.csv").mkdir()
    assert main(["predict", str(run), "photos", "--output", output]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"lamina: --output is {output}{message}\n"


def test_top_takes_one_or_more(photos, run, capsys):
    assert main(["predict", str(run), "photos", "--top", "0"]) == 2
    assert capsys.readouterr().err == "lamina: --top is 0; it must be at least 1. Use --top 1.\n"


def test_a_full_disk_leaves_the_file_as_it_was(photos, run):
    """A limit on the size of files is as near to a full disk as a test can come."""
    (photos / "predictions.jsonl").write_text("what was there before")
    with full_disk(0):
        printed = run_refused("predict", run, "photos", "--output", "predictions.jsonl")
    assert (
        printed.splitlines()[-1]
        == "lamina: Cannot write predictions.jsonl: File too large. The file is unchanged; use"
        " another --output."
    )
    assert (photos / "predictions.jsonl").read_text() == "what was there before"
    assert [file.name for file in photos.glob(".predictions*")] == []


def test_a_pipe_gets_a_row_an_image(photos, run):
    shown = run_lamina("predict", run, "photos/2.png", "photos/in")
    lines = [re.sub(r"\d+\.\d %", "… %", line) for line in shown.stdout.splitlines()]
    assert lines[0] == "image\tpredicted"
    assert [line.split("\t")[0] for line in lines[1:]] == [
        "photos/2.png",
        "photos/in/3.png",
        "photos/in/deep/4.png",
    ]
    assert {part.split()[0] for line in lines[1:] for part in line.split("\t")[1].split(", ")} == {
        "cat",
        "dog",
        "hen",
    }
