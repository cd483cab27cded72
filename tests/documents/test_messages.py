"""Commands print the messages of docs/howto/when-it-goes-wrong.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support.commands import run_refused, run_well
from support.images import write_images

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "when-it-goes-wrong.md"
MODULE = """
from torch import nn


def make_module():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
"""


def join_lines(text: str) -> str:
    return " ".join(text.split())


MESSAGES = re.findall(r"\*\*`([^`]+)`\*\*", join_lines(PAGE.read_text(encoding="utf-8")))


def find_message(start: str) -> str:
    """The message of the page that begins with these words."""
    (message,) = [message for message in MESSAGES if message.startswith(start)]
    return message


def test_the_page_has_about_twenty_messages():
    assert 18 <= len(MESSAGES) <= 24


@pytest.mark.parametrize(
    ("start", "command"),
    [
        ("No data set", ["train", "mlp", "--data", "pets"]),
        ("Unknown command", ["trian"]),
        ("The images in flat", ["data", "flat"]),
        ("split is ambiguous", ["data", "split"]),
        ("layer 1 of 2", ["train", "Linear(10), Output()", "--data", "photos", "--size", "64"]),
    ],
)
def test_what_stops_a_command_before_training(workplace, start, command):
    write_images(workplace / "photos", 20)
    shutil.copytree("photos/dark", "flat")
    shutil.copytree("photos", "split/train")
    shutil.copytree("photos/dark", "split/extra/dark")
    assert find_message(start) in join_lines(run_refused(*command))


def test_copies_in_two_splits(workplace):
    write_images(workplace / "photos" / "train", 9)
    shutil.copytree("photos/train", "photos/test")
    assert find_message("18 images are in both") in join_lines(run_well("data", "photos").stdout)


def test_what_stops_a_command_after_training(workplace):
    write_images(workplace / "photos", 20)
    write_images(workplace / "others", 5)
    (workplace / "others" / "dark").rename("others/gray")
    (workplace / "mine.py").write_text(MODULE, encoding="utf-8")
    train = ("train", "mlp", "--data", "photos", "--epochs", "1", "--name", "first")
    run_well(*train)
    run_well("train", "mine.py", "--data", "photos", "--epochs", "1", "--name", "own")

    assert find_message("The run runs/first") in run_refused(*train)
    assert find_message("runs/own was trained") in run_refused("predict", "own", "photos")
    other_classes = run_refused("evaluate", "first", "--data", "others")
    assert find_message("photos has labels").replace("photos", "others") in other_classes
    Path("photos/dark/1.png").unlink()
    assert find_message("photos has changed") in run_refused("resume", "first")
    moved = find_message("runs/first was trained on").partition("/data")[0]
    shutil.rmtree("photos")
    assert moved in run_refused("evaluate", "first")
