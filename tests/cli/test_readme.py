"""README's lines of shell are typed in order, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from commands import run_lamina

README = Path(__file__).parents[2] / "README.md"


def test_readmes_lines_of_shell_run_as_they_stand(workplace):
    (block,) = re.findall(r"^## [^\n]*lines of shell\n\n```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(lines) >= 5
    for command, *words in lines:
        assert command == "lamina"  # the script of that name is what tests/test_documents.py starts
        done = run_lamina(*words)
        assert done.returncode == 0, done.stderr
    assert (workplace / "runs" / "first" / "report.json").exists()
