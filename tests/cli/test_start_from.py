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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("first@3",), "runs/first has no checkpoint after epoch 3. Choose from 4."),
        (("first@4",), "runs/first ended after epoch 4, with epochs 4"),
        (("first@x",), "expected the number of an epoch after @. Use first@3"),
        (("first@4", "--time", "10s"), "A run that continues from a checkpoint has no time"),
        (("first@4", "--val", "0.2"), "continues on the data of the run, loaded in the same way."),
        (("first@4", "--seed", "3"), "seed is 3, but runs/first was trained with 0, which"),
        (("first@4", "--data", "shapes"), "runs/first was trained on"),
    ],
)
def test_what_a_checkpoint_fixes_is_refused(first, words, message):
    told = run_lamina("train", "--start-from", *words)
    assert told.returncode == 2
    assert message in told.stderr
    assert [path.name for path in first.parent.iterdir()] == ["first"]
