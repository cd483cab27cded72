"""The commands that README.md begins with are typed in order, in a folder with images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.commands import run_lamina, run_process
from support.images import write_images

README = Path(__file__).parents[2] / "README.md"
SHORTER = {
    "3m": "12s",
    "--seeds 3": "--seeds 2",
    "--seeds 4": "--seeds 2",
    "--epochs 3": "--epochs 1",
    'compare mlp "Flatten(), Output()"': 'compare mlp,epochs=1 "Flatten(), Output(),epochs=1"',
    'Output()" --data shapes --without': 'Output(),epochs=1" --data shapes --without',
}
"""Parts of commands that are replaced, so that the test is short."""
ADDED = {
    "train": ["--size", "16"],
}
"""Words that are added to commands, for the same reason."""


def shorten(line: str) -> list[str]:
    """The words of a command, for a training of seconds."""
    for text, replacement in SHORTER.items():
        line = line.replace(text, replacement)
    words = shlex.split(line, comments=True)
    assert words[0] == "lamina"
    command = " ".join(words[1:])
    return words[1:] + [
        word for start, more in ADDED.items() if command.startswith(start) for word in more
    ]


@pytest.mark.slow
def test_the_first_commands_of_the_readme_run(workplace):
    write_images(workplace / "photos", 40)
    write_images(workplace / "new", 2)
    for image in sorted((workplace / "new").rglob("*.*")):
        image.rename(workplace / "new" / f"{image.parent.name}-{image.stem}.jpg")
    (start,) = re.findall(
        r"^## Start here\n(.*?)^## ", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    blocks = re.findall(r"^```sh\n(.*?)^```", start, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for line in "".join(blocks).splitlines():
        words = shorten(line)
        # A limit counts from the start of the process.
        run = run_process if "--time" in words else run_lamina
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert (workplace / "runs" / "first" / "report.html").exists()
