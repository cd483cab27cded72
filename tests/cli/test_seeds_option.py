"""``lamina train --seeds N``: what does not go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli import main


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "train --seeds 3",
            "--seeds requires a net. Add NET, as in lamina train cnn-s --seeds 3.",
        ),
        (
            "train mlp --seeds 3 --time 5s",
            "--seeds trains complete runs that differ only in the seed. Leave out --time.",
        ),
    ],
)
def test_what_does_not_go_with_seeds(workplace, capsys, command, message):
    assert main(command.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"
    assert not Path("runs").exists()
