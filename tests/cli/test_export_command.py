"""lamina export, predict with what it wrote, and predict's doubts, as a person types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import events, run_lamina, run_process

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of the built-in shapes, with val."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = run_lamina("train", NET, "--data", "shapes", "--val", "0.1", "--epochs", "1", "--name", "one")
        assert done.returncode == 0, done.stderr
    return folder / "runs/one"


def test_a_run_is_exported_and_its_file_answers_alike(trained, workplace, pictures):
    done = run_process("export", trained, "net.onnx")
    assert done.returncode == 0, done.stderr
    assert (
        "equal to the run on 256 test pictures, an all black and an all white one, in batches of 1, 2, 7" in done.stdout
    )
    certificate = json.loads(Path("net.onnx.json").read_text())
    assert certificate["largest_difference"] <= certificate["limit"]
    for words in (("net.pt2",), ("net.program", "--to", "pt2")):
        (event,) = events(run_lamina("export", trained, *words, "--json").stdout)
        assert (event["event"], event["format"], event["file"]) == ("export", "pt2", words[0])
        assert event["pictures"] == 258
        assert event["largest_difference"] <= event["limit"]
    picture = pictures / "test/dark/0.png"
    by_run, by_file = (
        events(run_lamina("predict", model, picture, "--json").stdout)[0] for model in (trained, "net.onnx")
    )
    assert by_file["answer"] == by_run["answer"]
    assert by_file["probabilities"] == pytest.approx(by_run["probabilities"], abs=1e-5)


def test_what_cannot_be_exported_or_used_is_said(trained, workplace, pictures):
    picture = pictures / "test/dark/0.png"
    Path("net.onnx").write_text("nothing")
    for words, message in (
        (
            ("export", trained, "net.bin"),
            "The file was net.bin, but must end in .onnx or .pt2. Another ending needs --to.",
        ),
        (
            ("export", trained, "none/net.onnx"),
            "The file was none/net.onnx, but there is no folder none. Create it first.",
        ),
        (
            ("predict", "net.onnx", picture, "--coverage", "0.9"),
            "--coverage is fitted to val pictures, which an exported file does not have. Give the run.",
        ),
        (("predict", "gone.onnx", picture), "Cannot read gone.onnx: No such file or directory. "),
        (("predict", "net.onnx", picture), "net.onnx is not an ONNX file that can be run: "),
    ):
        done = run_lamina(*words)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"lamina: {message}")
    assert Path("net.onnx").read_text() == "nothing"


def test_unsure_answers_are_rejected_and_sets_are_shown(trained, workplace, pictures):
    picture = pictures / "test/dark"
    done = run_lamina("predict", trained, picture, "--reject-below", "0.99", "--coverage", "0.8", "--json")
    assert done.returncode == 0, done.stderr
    assert "rejecting: below 99 %; of 2,000 pictures of test, " in done.stderr
    assert "coverage: 80 %, fitted to 800 pictures of val; on 2,000 of test, " in done.stderr
    for event in events(done.stdout):
        ranked = sorted(event["probabilities"], key=event["probabilities"].get, reverse=True)
        assert event["rejected"] is (event["probabilities"][ranked[0]] < 0.99)
        assert event["set"] == ranked[: len(event["set"])]
        assert len(event["set"]) > 1  # a net that has hardly learned
    done = run_lamina("predict", trained, picture, "--reject-below", "0.99")
    assert all(line.split("\t")[1].startswith("rejected (") for line in done.stdout.splitlines()[1:])
    run_lamina("predict", trained, picture, "--reject-below", "0.01", "--coverage", "0.8", "--output", "all.csv")
    with Path("all.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert {row["rejected"] for row in rows} == {"no"}
    assert all(row["answer"] == row["set"].split(";")[0] for row in rows)


def test_a_damaged_calibration_is_named(trained, workplace, pictures):
    file = trained / "calibration.json"
    before = file.read_text()
    try:
        file.write_text(before.replace("val", "other"))
        done = run_lamina("predict", trained, pictures / "test/dark/0.png")
        assert done.returncode == 2
        assert f"{file} is damaged: " in done.stderr
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reject-below", "80"), "--reject-below was 80, but must be between 0 and 1, such as 0.9."),
        (("--coverage", "1"), "--coverage was 1, but must be between 0 and 1, such as 0.9."),
        (
            ("--coverage", "0.9999"),
            "--coverage was 0.9999, but val has only 800 pictures: too few to promise that. Give a lower coverage.",
        ),
    ],
)
def test_doubts_that_cannot_be_had_are_said(words, message, trained, workplace, pictures):
    done = run_lamina("predict", trained, pictures / "test/dark/0.png", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}"
