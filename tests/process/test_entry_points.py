"""What a new interpreter loads, and its status after help, bugs, interrupts and closed pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina import __version__
from lamina.cli import COMMANDS
from support.commands import start_process

WITHOUT_TORCH = """
import sys
from lamina.cli import COMMANDS, main

def find_loaded(*names):
    return sorted({*names} & set(sys.modules))

main(["--help"])
print("loaded:", find_loaded("torch", "matplotlib", "numpy", "rich"))
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit:
        print("loaded:", find_loaded("torch", "matplotlib"))
for words in (["summary", "cnn"], ["data", "shapes", "--size", "8"]):
    print("status:", main(words))
    print("loaded:", find_loaded("torch"))
"""


@pytest.mark.usefixtures("cache")
def test_help_loads_neither_torch_nor_matplotlib():
    words = [sys.executable, "-c", WITHOUT_TORCH]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert all(f"usage: lamina {name}" in shown for name in COMMANDS)
    assert shown.count("loaded: []\n") == shown.count("loaded: ") == 1 + len(COMMANDS) + 2
    assert shown.count("status: 0\n") == 2


def test_a_reader_that_goes_away_is_no_bug():
    with start_process("summary", "cnn") as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")


SCRIPT = Path(sys.executable).with_name("lamina")


def test_the_installed_script_prints_the_version():
    words = [SCRIPT, "--version"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert shown == f"lamina {__version__}\n"


def test_a_bug_ends_with_a_traceback_and_status_1(workplace):
    """Python imports sitecustomize at its start."""
    Path("sitecustomize.py").write_text(
        "import lamina.cli.runs\nlamina.cli.runs.run = lambda *_: 1 / 0"
    )
    environment = {**os.environ, "PYTHONPATH": str(workplace)}
    done = subprocess.run([SCRIPT, "runs"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("\nZeroDivisionError: division by zero\n")


INTERRUPTED = """
import lamina.cli

def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return 130

lamina.cli.main = main
"""


def test_an_interrupt_in_code_that_was_text_ends_with_status_130(workplace):
    """As while a dataclass is defined: Python would end itself by the signal."""
    Path("sitecustomize.py").write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(workplace)}
    done = subprocess.run([sys.executable, "-m", "lamina"], env=environment)
    assert done.returncode == 130
