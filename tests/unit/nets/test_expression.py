from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import NetError
from lamina.nets import (
    Conv2d,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    Net,
    Output,
    ReLU,
    Residual,
    parse_net,
)
from support.examples import count_examples

EXAMPLE = "Write layers such as: Flatten(), Linear(200), ReLU(), Output()."


@pytest.mark.parametrize(
    ("text", "net"),
    [
        ("Flatten(), Linear(200), ReLU(), Output()", Net(Flatten(), Linear(200), ReLU(), Output())),
        ("Net(Flatten(), Output())", Net(Flatten(), Output())),
        ("Net(Output())", Net(Output())),
        ("Output()", Net(Output())),
        ("  Flatten(),\n  Output(),  # the classes\n", Net(Flatten(), Output())),
        ("(Flatten(), Output())", Net(Flatten(), Output())),
        (
            (
                'Conv2d(32, kernel_size=(3, 1), padding="same", bias=False), Dropout(p=.25),'
                " Output(None)"
            ),
            Net(Conv2d(32, (3, 1), padding="same", bias=False), Dropout(0.25), Output()),
        ),
        (
            "Residual(ReLU(), LeakyReLU(0.1), shortcut=(Conv2d(8, 1),))",
            Net(Residual(ReLU(), LeakyReLU(0.1), shortcut=(Conv2d(8, 1),))),
        ),
    ],
)
def test_reads_layers_as_they_are_written_in_python(text: str, net: Net):
    assert parse_net(text) == net


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"expected layers, got none. {EXAMPLE}"),
        ("Net()", f"expected layers, got none. {EXAMPLE}"),
        ("cnn", f"expected a layer, got: cnn. {EXAMPLE}"),
        ("Flatten(), 3", f"expected a layer, got: 3. {EXAMPLE}"),
        ("Flatten(), ReLU", f"expected a layer, got: ReLU. {EXAMPLE}"),
        ("Flatten() + Output()", f"expected a layer, got: Flatten() + Output(). {EXAMPLE}"),
        ("nn.ReLU()", f"expected a layer, got: nn.ReLU(). {EXAMPLE}"),
        ("ReLU()()", f"expected a layer, got: ReLU()(). {EXAMPLE}"),
        ("*x, ReLU()", f"expected a layer, got: *x. {EXAMPLE}"),
        ("Net(*[ReLU()])", f"expected a layer, got: *[ReLU()]. {EXAMPLE}"),
        ("Net(Net())", "'Net' is not a layer. Choose from: "),
        ("ReLU()) + (ReLU()", f"expected a layer, got: (\nReLU()) + (ReLU()\n). {EXAMPLE}"),
        ("Liner(3)", "'Liner' is not a layer. Did you mean Linear?"),
        ("__import__('os')", "'__import__' is not a layer. Choose from: "),
        (
            "Conv2d(3, kernal_size=3)",
            "Conv2d: unknown argument 'kernal_size'. Did you mean kernel_size?",
        ),
        (
            "Conv2d(3)",
            (
                "Conv2d: missing a required argument: 'kernel_size'. Its arguments are:"
                " out_channels, kernel_size, stride=, padding=, dilation=, groups=, bias="
            ),
        ),
        ("ReLU(3)", "ReLU: too many positional arguments. Its arguments are: none."),
        ("Linear(3, out_features=3)", "Linear: multiple values for argument 'out_features'. "),
        (
            "Dropout(**x)",
            "expected a number, a string, True, False, None or a tuple of these, got: x. ",
        ),
        ("Dropout(**3)", "Dropout: unknown argument '**'. Choose from: p."),
        (
            "Linear(10 * 20)",
            (
                "expected a number, a string, True, False, None or a tuple of these, got: 10 * 20. "
                "Expressions are not evaluated: write the value itself."
            ),
        ),
        (
            "Linear(units)",
            "expected a number, a string, True, False, None or a tuple of these, got: units. ",
        ),
        (
            "Linear(f'{x}')",
            "expected a number, a string, True, False, None or a tuple of these, got: f'{x}'. ",
        ),
        (
            "Linear(b'3')",
            "expected a number, a string, True, False, None or a tuple of these, got: b'3'. ",
        ),
        (
            "Linear(3j)",
            "expected a number, a string, True, False, None or a tuple of these, got: 3j. ",
        ),
        (
            "Linear(...)",
            "expected a number, a string, True, False, None or a tuple of these, got: .... ",
        ),
        (
            "Linear([3])",
            "expected a number, a string, True, False, None or a tuple of these, got: [3]. ",
        ),
        (
            "Linear(*(3,))",
            "expected a number, a string, True, False, None or a tuple of these, got: *(3,). ",
        ),
        (
            "Conv2d(8, 3, stride=1, stride=2)",
            "an argument is repeated, in: Conv2d(8, 3, stride=1, stride=2). Write each",
        ),
        ("Linear(-3)", "Linear: out_features must be a whole number from 1 to 1,000,000, got -3."),
        (
            "Linear(1e999)",
            "Linear: out_features must be a whole number from 1 to 1,000,000, got inf.",
        ),
        (
            "Linear(ReLU())",
            "Linear: out_features must be a whole number from 1 to 1,000,000, got ReLU().",
        ),
        (
            "ReLU(), Linear(3 4)",
            (
                "the layers are not valid Python: invalid syntax. Perhaps you forgot a comma?, at:"
                " 3 4). "
            ),
        ),
        ("x = ReLU()", "the layers are not valid Python: "),
        ("ReLU(", f"the layers are not valid Python: '(' was never closed, at: (. {EXAMPLE}"),
        ("ReLU());import os;(", "the layers are not valid Python: "),
        ("lambda: ReLU()", f"expected a layer, got: lambda: ReLU(). {EXAMPLE}"),
        (
            "[ReLU() for _ in range(9)]",
            f"expected a layer, got: [ReLU() for _ in range(9)]. {EXAMPLE}",
        ),
        ("Net(layers=3)", "'Net' is not a layer. Choose from: "),
        (
            "ReLU(\ud800)",
            f"the layers are nested too deeply or contain an invalid character. {EXAMPLE}",
        ),
    ],
)
def test_messages_quote_the_piece_that_is_wrong(text: str, message: str):
    with pytest.raises(NetError) as rejection:
        parse_net(text)
    # The quoted piece stands on one line.
    assert str(rejection.value).startswith(" ".join(message.split()))


@pytest.mark.parametrize(
    "text",
    [
        "-" * 190_000 + "1",
        "Linear(" + "-" * 19_000 + "1)",
        "(" * 9_000 + ")" * 9_000,
        "Residual(" * 1_500 + "ReLU()" + ")" * 1_500,
        "ReLU()" + "()" * 90_000,
        "ReLU()" + ".x" * 9_000,
        "not " * 4_900 + "x",
        "[" * 9_000,
        "Linear(" + "9" * 5_000 + ")",
        "ReLU()\0",
        "\0",
        "1if 2 else 3",
        "'\\d'",
    ],
    ids=lambda text: f"{text[:12]!r}, {len(text)} characters",
)
def test_hostile_text_is_rejected(text: str):
    with pytest.raises(NetError):
        parse_net(text)


def test_nothing_is_run(capsys: pytest.CaptureFixture[str]):
    for text in (
        "print(1)",
        "ReLU(print(1))",
        "Linear(print(1))",
        "Residual(ReLU(), shortcut=print(1))",
    ):
        with pytest.raises(NetError):
            parse_net(text)
    assert capsys.readouterr().out == ""


PUNCTUATION = "()[]{},=*-.:'\"\\\n#; 0123456789\0\ud800é"
WORDS = (
    "Net( ReLU() Conv2d(8,3) Linear( Residual( shortcut= None True lambda for f'{x}' 1e9"
    " padding='same' **"
)
fragments = st.sampled_from([*PUNCTUATION, *WORDS.split()])


@settings(deadline=None, max_examples=count_examples(400))
@given(text=st.text(max_size=40) | st.lists(fragments, max_size=15).map("".join))
def test_any_text_makes_a_net_or_a_rejection(text: str):
    try:
        net = parse_net(text)
    except NetError:
        return
    assert parse_net(repr(net)) == net
