"""``lamina train --folds N``: every image is predicted by a model that has not seen it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.commands import events, run_refused, run_well
from support.images import write_images

NET_TEXT = "Flatten(), Output()"


@pytest.fixture(scope="module")
def study(tmp_path_factory, image_set):
    """A finished cross-validation of three folds, and the events of its command."""
    folder = tmp_path_factory.mktemp("folds")
    words = ("--data", image_set, "--folds", "3", "--epochs", "2", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words, "--runs-dir", folder)
    return folder / "cv", events(done.stdout)


@pytest.fixture
def runs(workplace, study):
    """A copy of it as ``runs/cv``."""
    shutil.copytree(study[0], workplace / "runs" / "cv")
    return Path("runs/cv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "1"), "must be at least 2"),
        (("--folds", "3", "--seeds", "2"), "without val. Leave out --seeds."),
        (("--folds", "3", "--patience", "2"), "without val. Leave out --patience."),
        (
            ("--folds", "3", "--on-diagnosis", "stop"),
            "without val. Leave out --on-diagnosis.",
        ),
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
