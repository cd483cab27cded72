"""The commands that README.md begins with are typed in order, in a folder with images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.commands import run_lamina, run_process
from support.images import write_images

README = Path(__file__).parents[2] / "README.md"
SHORTER = {"3m": "20s"}
"""Words of commands that are replaced, so that the test is short."""


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
        command, *words = shlex.split(line, comments=True)
        # tests/documents/test_documents.py starts the script of that name
        assert command == "lamina"
        # the limit counts from the start of the process
        run = run_process if "--time" in words else run_lamina
        done = run(*(SHORTER.get(word, word) for word in words))
        assert done.returncode == 0, done.stderr
    assert (workplace / "runs" / "first" / "report.html").exists()
