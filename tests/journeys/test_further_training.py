"""``lamina train --start-from RUN``: on more images."""

from __future__ import annotations

import shutil

import pytest

from lamina import load_run
from support.commands import run_well, train_once
from support.images import write_images


@pytest.fixture
def first(workplace, image_set):
    """A finished run as ``runs/first``."""
    run = train_once("mlp", image_set, "--epochs", "4", "--device", "cpu")
    return shutil.copytree(run, workplace / "runs" / "first")


def test_more_images_with_a_new_class(first, tmp_path, image_set):
    more = tmp_path / "more"
    for split, count, seed in (("train", 40, 8), ("test", 10, 9)):
        write_images(more / split, count, seed=seed)
        (more / split / "dark").rename(more / split / "night")
    words = (
        "train",
        "--start-from",
        first,
        "--data",
        more,
        "--name",
        "second",
        "--device",
        "cpu",
        "--json",
    )
    trained = run_well(*words)
    assert "outputs kept: bright; initialized: night" in trained.stderr
    run_well("reproduce", "runs/second")


def test_the_run_before_stays_as_it_is(first, image_set):
    before = {file: file.read_bytes() for file in first.iterdir() if file.is_file()}
    run_well("train", "--start-from", first, "--data", image_set, "--epochs", "1")
    assert {file: file.read_bytes() for file in first.iterdir() if file.is_file()} == before
    assert load_run("first").record.started_from is None


def test_the_corrections_of_the_run_stay_with_its_data(workplace, image_set):
    file = workplace / "corrected.csv"
    name = sorted((image_set / "train" / "bright").iterdir())[0].name
    file.write_text(f"image,correct\ntrain/bright/{name},dark\n")
    words = ("--data", image_set, "--epochs", "1", "--device", "cpu", "--name")
    run_well("train", "mlp", *words, "first", "--labels-from", file)
    file.unlink()
    trained = run_well("train", "--start-from", "first", *words, "second")
    first, second = load_run("first"), load_run("second")
    assert (
        second.record.data.preparation.labels_from
        == first.record.data.preparation.labels_from
        != ()
    )
    assert "1 label corrected" in trained.stderr
    other = write_images(workplace / "more" / "train", 20, seed=5).parent
    write_images(other / "test", 10, seed=6)
    run_well("train", "--start-from", "first", *words, "third", "--data", other)
    assert not load_run("third").record.data.preparation.labels_from
