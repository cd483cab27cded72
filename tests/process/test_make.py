"""``make demo``, the first command of the README, on a folder of images in place of CIFAR-10."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.nightly  # a study in a new interpreter; other tests compare nets without one
@pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt-get install make")
def test_the_demo_trains_and_compares_the_articles_nets(image_set, tmp_path):
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        [
            "make",
            f"--file={MAKEFILE}",
            "--old-file=.venv/installed",  # lamina is installed where the tests run
            f"BIN={scripts}",
            f"DEMO=--data {image_set} --seeds 2",
            "demo",
        ],
        cwd=tmp_path,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (study,) = (tmp_path / "runs").glob("study-*")
    assert (study / "differences.svg").read_text().count("<circle") == 2  # one for each seed
    printed = done.stdout
    accuracies = re.findall(r"^(mlp|cnn)\b.*\d %", printed, re.MULTILINE)
    assert accuracies[:2] == ["mlp", "cnn"], printed
