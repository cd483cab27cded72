"""``lamina train --start-from RUN --data MORE``: train on more images."""

from __future__ import annotations

import shutil

import pytest

from support.commands import run_lamina, train_once


@pytest.fixture
def first(workplace, image_set):
    """A finished run as ``runs/first``."""
    run = train_once("mlp", image_set, "--epochs", "4", "--device", "cpu")
    return shutil.copytree(run, workplace / "runs" / "first")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--seeds", "2"),
            "--epochs 5 --lr 0.01. Leave out --seeds.",
        ),
        (
            ("mlp",),
            "trains the net of runs/first, mlp. Leave out net (on the command line, NET).",
        ),
        (
            ("--size", "20"),
            (
                "--size is 20, but runs/first was trained on images of 12×12 px, which cannot"
                " change in further training."
            ),
        ),
        (
            ("--normalization", "channel"),
            "normalization is 'channel', but runs/first was trained with 'unit', which",
        ),
        (
            ("--head", "fitted"),
            (
                "head is 'fitted', but runs/first was trained with 'random', which cannot"
                " change in further training."
            ),
        ),
        (
            ("--no-pretrained",),
            "Leave out --no-pretrained.",
        ),
    ],
)
def test_what_a_run_fixes_is_refused(first, image_set, words, message):
    told = run_lamina("train", *words, "--start-from", "first", "--data", image_set)
    assert told.returncode == 2
    assert message in told.stderr


@pytest.mark.parametrize("net", ["mlp", "timm:resnet18"])
def test_the_weights_of_a_run_are_not_an_option_of_timm(first, image_set, net):
    for weights in (first / "model.safetensors", first):
        told = run_lamina("train", net, "--weights", weights, "--data", image_set)
        assert told.returncode == 2
        assert told.stderr.endswith(
            f"the weights of a run. Use lamina train --start-from {first}.\n"
        )
