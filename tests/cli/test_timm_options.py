"""The journey of a person with few images and weights that have learned from many."""

import pytest

from lamina.cli import main


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "train mlp --weights none --data shapes",
            "--weights is 'none', but only timm:NAME has pretrained weights. Leave out --weights.",
        ),
        (
            "summary timm:resnet18",
            (
                "NET is timm:resnet18, which is a torch module; lamina summary needs a lamina.Net. "
                "Use layers or the name of a net."
            ),
        ),
    ],
)
def test_what_does_not_go_together_is_reported(workplace, capsys, command, message):
    assert main(command.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"lamina: {message}"
