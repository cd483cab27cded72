"""Text from files and data is shown on one line, without control characters for the terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import find_nearest, name_some, plural, suggest
from lamina.text import escape, format_percent, format_table, shorten


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("naïve café 猫 👩‍🚀 a\u00a0b", "naïve café 猫 👩‍🚀 a\u00a0b"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\tc\x00\x7f\x9b", r"a\nb\r\tc\x00\x7f\x9b"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("a\u2028b", r"a\u2028b"),
        ("caf\udce9", r"caf\udce9"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_controls_are_escaped_and_letters_are_not(name: str, shown: str) -> None:
    assert escape(name) == shown


@given(st.text())
def test_nothing_that_is_shown_is_a_control_or_ends_a_line(text: str) -> None:
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(letter) for letter in shown} & {
        "LRO",
        "RLO",
        "LRE",
        "RLE",
        "PDF",
        "RLI",
    }
    assert escape(shown) == shown


def test_wide_letters_of_a_table_count_twice() -> None:
    assert format_table(
        ["name", "count"], [["猫猫猫", "1"], ["[red]a\nb", "22"], ["x" * 300, "3"]]
    ).splitlines() == [
        "name" + " " * 298 + "count",
        "猫猫猫" + " " * 300 + "1",
        r"[red]a\nb" + " " * 296 + "22",
        "x" * 300 + " " * 6 + "3",
    ]


def test_names_counts_and_fractions_are_formatted() -> None:
    assert name_some(["cat", "dog", "owl"], most=2) == "cat, dog and 1 more"
    assert (plural(1, "class", "classes"), plural(1200, "class", "classes")) == (
        "1 class",
        "1,200 classes",
    )
    assert (format_percent(0.7552), format_percent(None)) == ("75.5 %", "–")
    assert shorten("great crested grebe, winter") == "great crested gr… winter"
    assert shorten("great crested grebe, summer") == "great crested gr… summer"


def test_the_nearest_name_is_suggested() -> None:
    names = ["resize", "lr", "size_px"]
    assert [find_nearest(name, names) for name in ("learning_rate", "size", "rezise")] == [
        "lr",
        "size_px",
        "resize",
    ]
    assert suggest("cnm", ["cnn", "mlp"]) == "Did you mean cnn?"
    assert suggest("zebra", ["cnn", "mlp"]) == "Choose from: cnn, mlp."
