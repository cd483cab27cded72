"""What comes from files and data is shown on one line, and without anything that a terminal obeys."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.text import escape, format_table


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
    assert not {unicodedata.bidirectional(letter) for letter in shown} & {"LRO", "RLO", "LRE", "RLE", "PDF", "RLI"}
    assert escape(shown) == shown


def test_a_table_is_as_wide_as_its_cells_and_wide_letters_count_twice() -> None:
    assert format_table(["name", "count"], [["猫猫猫", "1"], ["[red]a\nb", "22"], ["x" * 300, "3"]]).splitlines() == [
        "name" + " " * 298 + "count",
        "猫猫猫" + " " * 300 + "1",
        r"[red]a\nb" + " " * 296 + "22",
        "x" * 300 + " " * 6 + "3",
    ]
