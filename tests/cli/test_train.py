"""lamina train: what it prints, and messages before it trains."""

import contextlib
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest

from lamina.cli import main
from support.commands import events, run_lamina, run_refused, run_well, train_once
from support.images import SIDE_PX, write_images

NET = "Flatten(), Linear(8), ReLU(), Output()"


def test_a_pipe_gets_plain_lines_and_every_default_is_reported(workplace, image_set):
    trained = run_well("train", "mlp", "--data", image_set, "--epochs", "2", "--seed", "3")
    assert "\x1b" not in trained.stdout + trained.stderr
    lines = trained.stdout.splitlines()
    assert lines[0].startswith("epoch 1/2  train loss ")
    assert any(line.startswith("test accuracy ") and "95 % interval" in line for line in lines)
    # the number of threads depends on the machine
    printed = [line for line in trained.stderr.splitlines() if not line.startswith("threads: ")]
    assert (
        printed[0]
        == f"data: {image_set.name} (as requested): 60 train, 20 test; 3×{SIDE_PX}×{SIDE_PX}"
    )
    assert (
        printed[1]
        == "splits: from the source; no val, because it would have 6 images, fewer than 10"
    )
    assert printed[2] == "targets: single-label, 2 classes, from the class folders"
    assert (
        printed[3]
        == "fitted to 60 images of 12 px (the recipe was tuned on 50,000 of 32 px): batch_size 100"
        " → 16, lr 0.001 → 0.0004"
    )
    assert printed[4] == "recipe: epochs 2, batch_size 16, optimizer adam, lr 0.0004, seed 3"
    assert printed[5] == "net: mlp, 43,502 parameters"
    assert printed[6].startswith("device: cpu (no GPU found); precision: ")
    assert re.search(r"; kernels: (avx512|off \(.+\))$", printed[6])
    assert printed[7].startswith("run: runs/2")


def test_a_change_of_optimizer_brings_its_usual_lr(workplace, image_set):
    usual = run_lamina(
        "train",
        "mlp",
        "--data",
        image_set,
        "--epochs",
        "1",
        "--optimizer",
        "sgd",
        "--name",
        "usual",
    )
    given = run_lamina(
        "train", "mlp", "--data", image_set, "--epochs", "1", "--optimizer", "sgd", "--lr", "0.001"
    )
    assert "lr: 0.05 (usual for sgd; set lr to change it)\n" in usual.stderr
    assert "optimizer sgd, lr 0.001," in given.stderr


def test_unreadable_images_are_named_and_the_rest_is_used(workplace, tmp_path):
    folder = write_images(tmp_path / "mine", 20)
    (folder / "dark" / "7.png").write_bytes(b"no image")
    shown = run_well("data", folder)
    assert "warning: Left out 1 image: dark/7.png" in shown.stderr
    assert (
        "warning: 1 file was left out: not an image. Repair, replace or remove it.\n"
        in shown.stdout
    )
    assert "\n    dark/7.png\n" in shown.stdout
    assert "splits: " in shown.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1 / 0\n",
            "mine.py failed in line 1: ZeroDivisionError: division by zero. Correct the file.",
        ),
        (
            "x = 1\n",
            "mine.py must define exactly one Net, or one function that returns a module. "
            "It defines none.",
        ),
        (
            "def build():\n    return 3\n",
            "mine.py: build() returned int; it must return a Net or an nn.Module.",
        ),
        (
            "from torch import nn\n"
            "class Mine(nn.Module):\n"
            "    def __init__(self, width):\n"
            "        pass\n",
            "mine.py: Mine needs the argument width, but lamina calls it without arguments. Give it"
            " a default, or leave it out.",
        ),
    ],
)
def test_a_file_that_makes_no_net_is_rejected(workplace, capsys, text, message):
    (workplace / "mine.py").write_text(text)
    assert main(["train", "mine.py", "--data", "shapes"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"


def run_on_a_screen(*arguments: str, out: Path | None = None) -> str:
    """Run a command on a pseudo-terminal, stdout there or in ``out``; return the screen."""
    import pty

    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux ends a pseudo-terminal with an error
            while chunk := os.read(ours, 65536):
                shown.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with contextlib.ExitStack() as stack:
        # a file descriptor, not a path
        screen = stack.enter_context(open(theirs, "w", encoding="utf-8"))  # noqa: PTH123
        stdout = screen if out is None else stack.enter_context(out.open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(screen))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        status = main(list(arguments))
    reader.join()
    os.close(ours)
    printed = b"".join(shown).decode()
    assert status == 0, printed
    return printed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_json_lines_stay_on_stdout_where_the_screen_shows_a_bar(workplace, image_set):
    lines = workplace / "lines.jsonl"
    shown = run_on_a_screen(
        "train", NET, "--data", str(image_set), "--epochs", "2", "--json", out=lines
    )
    printed = events(lines.read_text())
    assert [event["event"] for event in printed][-3:] == ["epoch", "epoch", "result"]
    assert "{" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_person_sees_whole_lines_and_a_table(workplace, image_set):
    shown = run_on_a_screen(
        "train", NET, "--data", str(image_set), "--epochs", "2", "--batch-size", "2"
    )
    assert "\r\n" in shown
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).split("\r")[-1] for line in shown.split("\r\n")
    ]
    assert sum(line.startswith("epoch 1/2  train loss ") for line in lines) == 1
    assert re.search(r"\x1b\[1mrun +\x1b\[0m", run_on_a_screen("runs"))  # a bold head


def test_train_names_an_image_with_two_classes(workplace, tmp_path):
    folder = write_images(tmp_path / "twice", 6)
    (folder / "dark/9.png").write_bytes((folder / "bright/0.png").read_bytes())
    done = run_well(
        "train", NET, "--data", folder, "--test", "0", "--epochs", "1", "--name", "twice"
    )
    error = "warning: 1 group of identical images has different targets, which no net can learn; "
    where = f"lamina data {folder} lists them (as blank if they have one color)\n"
    assert error + where in done.stderr


def test_a_name_that_exists_is_rejected_before_data_are_read(workplace, image_set):
    shutil.copytree(train_once(NET, image_set, "--epochs", "1"), "runs/same")
    printed = run_refused("train", NET, "--epochs", "1", "--name", "same", "--data", "nowhere")
    message = "The run runs/same already exists. Use lamina resume runs/same, or another --name."
    assert printed.splitlines()[-1] == f"lamina: {message}"


def test_images_are_looked_for_before_the_model_is_loaded(workplace, image_set):
    shutil.copytree(train_once(NET, image_set, "--epochs", "1"), "runs/lost")
    Path("runs/lost/model.safetensors").unlink()
    for command in ("predict", "explain", "similar"):
        assert run_refused(command, "runs/lost", "none.jpg", "gone/*.png") == (
            "lamina: none.jpg: no such file or directory, gone/*.png: no image matches this"
            " pattern\n"
        )
