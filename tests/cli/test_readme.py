"""README's lines of shell are typed in order, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_readmes_lines_of_shell_run_as_they_stand(workplace):
    (block,) = re.findall(r"^## [^\n]*lines of shell\n\n```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert block.count("lamina ") >= 5
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e"], input=block, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (workplace / "runs" / "first" / "report.json").exists()
