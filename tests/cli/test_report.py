"""lamina report: a page or a card, where it goes, and messages for what cannot be written."""

from __future__ import annotations

import shutil

import pytest

from lamina.runs.run import load_run
from support.commands import run_lamina, run_well


@pytest.fixture(scope="module")
def run_beside_data(tmp_path_factory, image_set):
    folder = tmp_path_factory.mktemp("report")
    data = shutil.copytree(image_set, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        net = "Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()"
        done = run_lamina("train", net, "--data", data, "--epochs", "2", "--name", "one")
    assert done.returncode == 0, done.stderr
    return folder / "runs/one"


def test_a_card_is_not_written_over_what_was_edited(run_beside_data):
    done = run_well("report", run_beside_data, "--card")
    file = run_beside_data / "README.md"
    assert done.stdout == f"model card: {file} ({file.stat().st_size / 1e3:.0f} kB)\n"
    assert f"{load_run(run_beside_data).report.images} images" in file.read_text()
    done = run_lamina("report", run_beside_data, "--card")
    assert done.returncode == 2
    assert (
        done.stderr
        == f"lamina: {file} already exists, and may contain your own text. Delete it, or choose"
        " another file.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("none/here.html",),
            "FILE is none/here.html, but the folder none does not exist. Create it, or use another"
            " folder.",
        ),
        (
            ("second",),
            "FILE is second; it must end in .html. Use FILE second.html.",
        ),
        (
            ("model.safetensors", "--card"),
            "FILE is model.safetensors; it must end in .md. Use FILE model.md.",
        ),
        (
            ("--card", "--data", "pets"),
            "--card uses neither data nor net. Leave out --data.",
        ),
    ],
)
def test_what_cannot_be_written_gets_one_message(run_beside_data, workplace, words, message):
    done = run_lamina("report", run_beside_data, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}"
    assert "Traceback" not in done.stderr


def test_a_folder_with_a_study_of_another_program_is_no_study(workplace):
    (workplace / "scans").mkdir()
    (workplace / "scans" / "study.json").write_text('{"patient": 1}')
    done = run_lamina("report", "scans")
    assert done.returncode == 2
    assert "No run named scans in this folder" in done.stderr
    assert "Traceback" not in done.stderr
