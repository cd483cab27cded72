"""The commands and the Python of README.md run, section by section, with less to train."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from support.commands import run_lamina, run_process, start_process

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
INSTALLS = ("make", "pip", "python3", "source", "uv")
"""First words of lines that install, which need a network."""
SECTIONS = {
    "Start here",
    "You have a folder of images",
    "You want to see it",
    "You are learning how neural networks work",
    "You compare methods",
    "Python",
}
SHORTER = {
    "--time 1m": "--time 2s",
    'mlp "Flatten(), Output()"': 'mlp,epochs=1 "Flatten(), Output(),epochs=1"',
    'Output()" --data shapes --without': 'Output(),epochs=1" --data shapes --without',
    "--epochs 3": "--epochs 1",
    "--seeds 3": "--seeds 2",
    "Recipe(epochs=5)": "Recipe(epochs=1)",
}


def read_sections() -> dict[str, list[tuple[str, str]]]:
    """The blocks of each section that it tells to run, with their languages."""
    _, *parts = re.split(r"^##+ (.*)\n", README, flags=re.MULTILINE)
    block = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    sections = {
        title: block.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: blocks for title, blocks in sections.items() if blocks}


def run_section(title: str) -> dict[str, str]:
    """Run what a section shows, in this folder; returns what each command prints."""
    printed: dict[str, str] = {}
    for language, block in read_sections()[title]:
        if language == "python":
            run_python(block)
        else:
            printed |= {line: run_command(line) for line in block.splitlines()}
    return printed


def shorten(text: str) -> str:
    for written, shorter in SHORTER.items():
        text = text.replace(written, shorter)
    return text


def run_python(block: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(shorten(block), "README.md", "exec"), namespace)


def run_command(line: str) -> str:
    program, *words = shlex.split(shorten(line), comments=True)
    if program == "printf":
        subprocess.run(line, shell=True, check=True)
        return ""
    assert program == "lamina"
    # A limit counts from the start of the process.
    run = run_process if "--time" in words else run_lamina
    done = run(*words)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_every_section_with_commands_is_run():
    sections = read_sections()
    installing = sections.pop("Install")
    assert {line.split()[0] for _, block in installing for line in block.splitlines()} <= {
        *INSTALLS
    }
    assert set(sections) == SECTIONS


def test_a_folder_of_images(workplace):
    run_section("Start here")
    printed = run_section("You have a folder of images")

    assert "heart/21-copy.jpg" in printed["lamina data duplicates photos"]
    with Path("issues.csv").open(encoding="utf-8-sig", newline="") as file:
        issues = {row["image"]: row["likely"] for row in csv.DictReader(file)}
    assert issues["crescent/09.jpg"] == "drop"
    assert issues["drop/23.jpg"] == "arrow"
    assert len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 41
    assert Path("runs/first/report.html").exists()


def test_the_studio_opens(workplace):
    assert read_sections()["You want to see it"] == [("sh", "lamina studio\n")]
    with start_process("studio", "--port", "0", "--no-browser") as studio:
        try:
            assert studio.stdout.readline().startswith("lamina studio: http://")
        finally:
            studio.terminate()
            studio.communicate()


def test_learning_how_networks_work(workplace):
    run_section("You are learning how neural networks work")

    assert Path("runs/second/inspection").is_dir()


def test_comparing_methods(workplace):
    printed = run_section("You compare methods")

    assert "bit" in printed["lamina reproduce runs/third/seed0"]


def test_training_in_python(workplace, capsys):
    run_section("Python")

    text = capsys.readouterr().out
    assert re.search(r"^epoch 1/1  train loss \d", text, re.MULTILINE)
    assert re.search(r"test accuracy +\d+\.\d %", text)
