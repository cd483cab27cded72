"""The commands and the Python of README.md run as they stand, in order, in an empty folder."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.commands import run_lamina, run_process, start_process

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLS = ("make", "pip", "python3", "source", "uv")
"""First words of lines that install, which need a network."""


def read_blocks() -> list[tuple[str, str]]:
    """The language and the text of each block of commands or Python."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def list_commands() -> list[list[str]]:
    lines = "".join(block for language, block in read_blocks() if language == "sh").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def open_and_end_studio() -> None:
    with start_process("studio", "--port", "0", "--no-browser") as studio:
        try:
            assert studio.stdout.readline().startswith("lamina studio: http://")
        finally:
            studio.terminate()
            studio.communicate()


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [words[1] for words in list_commands() if words[0] == "make"]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.slow
def test_the_readme_runs_as_it_stands(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed: dict[str, str] = {}
    for language, block in read_blocks():
        if language == "python":
            namespace: dict[str, Any] = {}
            exec(compile(block, "README.md", "exec"), namespace)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line.replace("--time 1m", "--time 5s"), comments=True)
            if program in INSTALLS:
                continue
            if program == "printf":
                subprocess.run(line, shell=True, check=True)
                continue
            assert program == "lamina"
            if words == ["studio"]:
                open_and_end_studio()
                continue
            # A limit counts from the start of the process.
            run = run_process if "--time" in words else run_lamina
            done = run(*words)
            assert done.returncode == 0, (line, done.stderr)
            printed[line] = done.stdout

    assert "pear/21-copy.jpg" in printed["lamina data duplicates photos"]
    with Path("issues.csv").open(encoding="utf-8-sig", newline="") as file:
        issues = {row["image"]: row["likely"] for row in csv.DictReader(file)}
    assert issues["leaf/09.jpg"] == "mug"
    assert issues["mug/23.jpg"] == "apple"
    assert len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 41
    assert Path("runs/first/report.html").exists()
    text = capsys.readouterr().out
    assert re.search(r"^epoch 5/5  train loss \d", text, re.MULTILINE)
    assert re.search(r"test accuracy +\d+\.\d %", text)
