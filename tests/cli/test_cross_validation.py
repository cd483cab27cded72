"""``lamina train --folds N``: what does not go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import run_refused
from support.images import write_images

NET_TEXT = "Flatten(), Output()"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "1"), "must be at least 2"),
        (("--folds", "3", "--seeds", "2"), "without val. Leave out --seeds."),
        (("--folds", "3", "--patience", "2"), "without val. Leave out --patience."),
        (("--folds", "3", "--fold", "1/3"), "already has fold 1/3 held out"),
        (("--folds", "3", "--name", "../cv"), "must be one line without /"),
        (("--folds", "3", "--name", ""), "must be one line without /"),
        (
            ("--folds", "3", "--runs-dir", "few/bright/0.png"),
            "Cannot write a run to few/bright/0.png",
        ),
        (("--folds", "31"), "have 24 images, fewer than 31 folds"),
    ],
)
def test_what_folds_cannot_do_is_said_before_anything_is_written(
    workplace, tmp_path, options, message
):
    data = write_images(tmp_path / "few", 15)
    words = ("--data", data, "--val", "0", "--test", "0.2", "--epochs", "1", *options)
    assert message in run_refused("train", NET_TEXT, *words)
    assert not Path("runs").exists()
