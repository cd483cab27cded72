"""What lamina says about a Python file that it cannot use as a net."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli.net_argument import choose_net
from lamina.cli.terminal import Terminal
from lamina.errors import NetError

SEQUENTIAL = "nn.Sequential(nn.Flatten(), nn.LazyLinear(10))"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            f"model = {SEQUENTIAL}",
            "model is a module that has its weights already; each run needs a new one. Write a"
            " function that returns it, as in def model(): return …",
        ),
        (
            f"def build(images):\n    return {SEQUENTIAL}",
            "build needs the argument images, but lamina calls it without arguments. Give it"
            " a default, or leave it out.",
        ),
        (
            f"def first():\n    return {SEQUENTIAL}\nsecond = first",
            "It defines first, second. Use mine.py:NAME.",
        ),
        ("answer = 42", "It defines none."),
    ],
)
def test_a_file_without_a_usable_net_says_what_is_expected(code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"from torch import nn\n{code}\n")
    with pytest.raises(NetError) as raised:
        choose_net("mine.py", Terminal())
    assert str(raised.value).endswith(message)


def test_a_function_is_called_again_for_each_run(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"from torch import nn\ndef build(width=4):\n    return {SEQUENTIAL}\n")
    choice = choose_net(f"{file}:build", Terminal())
    assert choice.name == "mine-build"
    assert choice.make(0, (1, 2, 2), 10) is not choice.make(0, (1, 2, 2), 10)
