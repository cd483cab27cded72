"""Small internal functions return what their callers expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamina.cli.serve import name_runs
from lamina.cli.terminal import read_seconds
from lamina.deploy.card import _quote
from lamina.deploy.serve.explanation import paint_map
from lamina.deploy.serve.metrics import quote
from lamina.deploy.serve.security import is_loopback
from lamina.deploy.serve.server import name_host
from lamina.errors import DataError
from lamina.markup import show, wrap
from lamina.training.diagnosis import find_overfitting
from lamina.training.parts import describe_arguments


def test_commands_read_times_and_name_runs() -> None:
    assert read_seconds("--save-every", "1.5m") == 90.0
    runs = [Path("runs/a"), Path("old/a"), Path("runs/b")]
    assert name_runs(runs) == {"runs/a": "runs/a", "old/a": "old/a", "b": "runs/b"}


def test_a_given_name_stays_whatever_is_added(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("lr=0.1", "runs/lr=0.2"):
        Path(folder).mkdir(parents=True)
    pets = Path("pets=runs/a")
    assert name_runs([pets]) == {"pets": "runs/a"}
    assert name_runs([Path("old/a"), pets]) == {"a": "old/a", "pets": "runs/a"}
    assert name_runs([Path("\x1b=x=1"), pets]) == {r"\x1b": "x=1", "pets": "runs/a"}
    plain = [Path(path) for path in ("lr=0.1", "lr=0.2", "old/lr=0.3")]
    assert name_runs(plain) == {"lr=0.1": "lr=0.1", "lr=0.2": "lr=0.2", "lr=0.3": "old/lr=0.3"}
    with pytest.raises(DataError, match="NAME is missing before ="):
        name_runs([Path("=a")])
    for other in ("pets=b", "old/pets"):
        with pytest.raises(
            DataError,
            match=r"^runs/a and (b|old/pets) have the same name, pets; names must differ\.",
        ):
            name_runs([pets, Path(other)])


def test_text_is_escaped_for_each_format() -> None:
    assert show("<b> & co") == "&lt;b&gt; &amp; co"
    assert show(wrap("b", "&")) == "<b>&amp;</b>"
    assert _quote("<b> *x* | www.example.com") == r"\<b\> \*x\* \| www\.example.com"
    assert quote('say "hi"\n') == r"say \"hi\"\n"


def test_hosts_are_recognized_and_named() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0")] == [
        True
    ] * 3 + [False]
    assert (name_host("127.0.0.1"), name_host("::1")) == ("127.0.0.1", "[::1]")


def test_maps_are_red_for_and_blue_against_the_prediction() -> None:
    painted = paint_map(np.array([[1.0, 0.0, -1.0]], np.float32))
    assert painted[0].tolist() == [[178, 24, 43, 230], [178, 24, 43, 0], [33, 102, 172, 230]]


def test_overfitting_is_a_rising_loss_on_val() -> None:
    rows = [
        {
            "epoch": e,
            "train_loss": 1 / e,
            "val_loss": 1 + abs(e - 3) / 8,
            "val_accuracy": 0.5 - abs(e - 3) / 8,
        }
        for e in range(1, 7)
    ]
    assert find_overfitting(rows[:4]) is None
    found = find_overfitting(rows)
    assert found is not None
    assert found.kind == "overfitting"


def test_custom_parts_are_described_as_arguments() -> None:
    parts = {
        "loss": "losses.focal",
        "metrics.top_2": "scores.top_2",
        "metrics.f1": "scores.<lambda>",
    }
    assert describe_arguments(parts) == 'loss=focal, metrics={"top_2": top_2, "f1": …}'
