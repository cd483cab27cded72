"""Command-line options have their effect, however they are spelt; --help has a clear layout."""

from __future__ import annotations

import inspect
import re
import shlex

import pytest

from lamina.cli import COMMANDS, DATA_COMMANDS, main
from lamina.cli.options import OPTIONS, DataLabels, Predict, Train
from lamina.cli.parsing import describe_options, parse_options
from lamina.data import Preparation
from lamina.errors import LaminaError
from lamina.training.recipe import Recipe, overlay


@pytest.mark.parametrize("words", [["--label-smoothing", "0.1"], ["--label_smoothing=0.1"]])
def test_what_is_given_is_never_dropped_however_it_is_spelt(words):
    assert parse_options(Train, "train", words).settings == {"label_smoothing": 0.1}


def test_options_replace_fields_of_the_net_s_recipe():
    own = Recipe(epochs=25, optimizer="muon", lr=0.05, flip="random")
    assert overlay(own, {}) == own
    assert overlay(own, {"epochs": 1, "flip": "off"}) == Recipe(epochs=1, optimizer="muon", lr=0.05)
    assert overlay(own, {"optimizer": "adam"}) == Recipe(
        epochs=25, optimizer="adam", lr=1e-3, flip="random"
    )
    assert overlay(own, {"optimizer": "adam", "lr": 0.2}).lr == 0.2
    assert overlay(own, {"optimizer": "muon"}) == own


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("runs/x --top 3 a.jpg b.jpg", ("a.jpg", "b.jpg")),
        ("runs/x a.jpg --top 3 b.jpg", ("a.jpg", "b.jpg")),
        ("--top 3 -- runs/x -a.jpg --b_c.jpg", ("-a.jpg", "--b_c.jpg")),
        ("runs/x --top 3 -", ("-",)),
    ],
)
def test_options_may_be_between_arguments(words, images):
    options = parse_options(Predict, "predict", words.split())
    assert options.top == 3
    assert tuple(map(str, (options.run, *options.images))) == ("runs/x", *images)


def test_nothing_given_is_nothing():
    options = parse_options(Train, "train", [])
    assert (options.settings, options.preparation) == ({}, {})
    given = parse_options(Train, "train", ["--lr", "0.001", "--val", "0.1"])
    assert given.settings == {"lr": 0.001}  # also where it is the default
    assert given.preparation == {"val_fraction": 0.1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--val", "2"],
            (
                "val_fraction must be a number from 0 to below 1, got 2.0. Leave out --val for the"
                " default."
            ),
        ),
        (
            ["--metric", "acuracy"],
            "--metric is 'acuracy'; it must be one of",
        ),
    ],
)
def test_an_option_s_value_is_checked_as_it_is_read(words, message):
    with pytest.raises(LaminaError) as raised:
        parse_options(Train, "train", words)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "train --epoch 3",
            "Unknown option --epoch. Did you mean --epochs? Run lamina train --help ",
        ),
        ("summary cnn mlp", "Unexpected argument mlp. Run lamina summary --help "),
        ("train --epochs x", "--epochs is 'x'; it must be a whole number."),
        ("train --lr fast", "--lr is 'fast'; it must be a number."),
        (
            "train --task None",
            "--task is 'None'; it must be one of single-label, multi-label, binary, regression.",
        ),
        ("runs --diff one", "--diff needs 2 values."),
        ("train --lr", "--lr needs 1 value."),
        ("runs --json=1", "--json needs no value."),
        ("summary", "lamina summary needs NET: name of a net in lamina's zoo"),
    ],
)
def test_options_that_cannot_be_read_are_one_message(words, message, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lamina: {message}")
    assert error.count("\n") == 1


def test_every_field_of_a_recipe_and_a_preparation_has_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    shown = capsys.readouterr().out
    for name in Recipe.__dataclass_fields__:
        assert re.search(rf"--{name.replace('_', '-')}\b", shown)
    words = (
        "--size 8 --resize pad --label-from filename --task binary --image-column a --label-column"
        " b c "
    )
    words += "--label-separator ; --split-column d --val 0.1 --test 0.2 --split-seed 3"
    assert Preparation(**parse_options(Train, "train", words.split()).preparation) == Preparation(
        size_px=8,
        resize="pad",
        label_from="filename",
        task="binary",
        image_column="a",
        label_columns=("b", "c"),
        label_separator=";",
        split_column="d",
        val_fraction=0.1,
        test_fraction=0.2,
        split_seed=3,
    )


def show_help(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([command, flag])
    assert ended.value.code == 0
    return capsys.readouterr().out


def list_flags(help_text: str) -> list[str]:
    return re.findall(r"^  (--?\w[-\w]*)", help_text, re.MULTILINE)


@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_subcommands_of_data_have_help_with_an_example(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main(["data", command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: lamina data {command} " in shown
    example = re.search(r"^Example: lamina data (.*)$", shown, re.MULTILINE)[1]
    name, *words = shlex.split(example)
    assert name == command
    assert parse_options(OPTIONS[f"data {command}"], f"data {command}", words)


def test_help_is_short_has_an_example_and_help_all_has_the_rest(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    for command in COMMANDS:
        kind = OPTIONS[command]
        parser = describe_options(kind, command)
        flags = {flag for action in parser._actions for flag in action.option_strings}
        shown = show_help(command, "--help", capsys)
        few = list_flags(shown)
        assert len(few) <= 20
        assert "None" not in shown
        assert set(few) <= flags | {"--help-all"}
        assert "\nExample: lamina " in shown
        text = " ".join(inspect.getdoc(kind).split("\n\n")[-1].split())
        name, *words = shlex.split(text.removeprefix("Example: lamina "))
        assert name == command
        assert parse_options(kind, command, words)


def test_help_all_has_the_options_that_help_leaves_out(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    for command in ("train", "summary"):
        shown = [show_help(command, flag, capsys) for flag in ("--help", "--help-all")]
        few, flags = map(list_flags, shown)
        assert "None" not in shown[1]
        assert set(few) <= set(flags)
        assert ("--help-all" in few) == (few != flags)


def test_a_switch_turns_something_off_too():
    assert parse_options(DataLabels, "data labels", ["photos"]).pretrained
    words = ["photos", "--no-pretrained"]
    assert not parse_options(DataLabels, "data labels", words).pretrained


def test_help_fits_the_width(monkeypatch, capsys):
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(map(len, show_help("train", "--help", capsys).splitlines())) <= width


def test_help_shows_groups_defaults_and_units(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    shown = show_help("train", "--help-all", capsys)
    groups = re.findall(r"^((?:[\w ]+ )?options):$", shown, re.MULTILINE)
    names = ("net options", "run options", "time and recipe options", "data options")
    assert {"options", *names} <= set(groups)
    out = " ".join(shown.split())
    assert "--lr VALUE peak learning rate (default: from the recipe)" in out
    assert (
        "--seed N seed of all random choices: initial weights, image order, augmentation and"
        " dropout (default: 0)" in out
    )
    assert re.search(r"--cutout-px PX [^()]*\(default: from the recipe\)", out)
    assert not re.search(r"\b(INT|FLOAT|STR|PATH)\b", out)
    assert "--task {single-label,multi-label,binary,regression}" in out
