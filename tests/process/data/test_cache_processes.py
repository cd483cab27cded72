"""One process prepares a data set, and a killed one leaves nothing that is taken for whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from lamina.data import load_data
from support import forking

LOAD = """
import sys
from lamina.data import Preparation, load_data

def show(done, total):
    print("decoding", flush=True)

data = load_data(sys.argv[1], progress=show)
print(data.fingerprint, int(data.train.pixels.sum()), flush=True)
"""


def start_loading(source: Path) -> forking.Process:
    return forking.start(source, code=LOAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_processes_at_once_make_it_once(many_images, tmp_path: Path, cache: Path) -> None:
    source = many_images.write_zip(tmp_path / "a.zip")
    processes = [start_loading(source) for _ in range(2)]
    outputs = []
    for process in processes:
        with process:
            outputs.append(process.communicate()[0].splitlines())

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("decoding" in output for output in outputs) == [False, True]
    assert outputs[0][-1] == outputs[1][-1]
    pixels, _, _ = many_images.select("train")
    assert int(outputs[0][-1].split()[1]) == pixels.sum()
    assert len(list(cache.glob("*/pixels"))) == 1


def test_a_killed_process_leaves_nothing_that_looks_whole(
    many_images, tmp_path: Path, cache: Path
) -> None:
    source = many_images.write_zip(tmp_path / "a.zip")
    with start_loading(source) as process:
        assert process.stdout.readline() == "decoding\n"
        process.kill()
    assert list(cache.glob(".a-*/"))

    data = load_data(source)

    pixels, _, names = many_images.select("train")
    np.testing.assert_array_equal(data.train.pixels, pixels)
    assert data.train.names == names
    assert not list(cache.glob(".a-*/"))


def test_waiting_for_another_process_is_announced(image_set, tmp_path: Path, cache: Path) -> None:
    """Bug 11: a second process waited without a word."""
    source = image_set.write_zip(tmp_path / "a.zip")

    def load_meanwhile(done: int, total: int) -> None:
        if process:
            return
        process.append(start_loading(source))
        assert (
            "LaminaWarning: Waiting for another process to prepare a."
            in process[0].stderr.readline()
        )

    process: list[forking.Process] = []
    load_data(source, progress=load_meanwhile)
    with process[0]:
        process[0].communicate()
    assert process[0].returncode == 0
