"""``run.json`` read back: whole, or damaged and named."""

from __future__ import annotations

import json
import re

import pytest

from lamina import __version__
from lamina.errors import RunError
from lamina.runs.record import FORMAT
from lamina.runs.run import load_run
from support.runs import edit_json, refuses


def test_a_folder_that_is_no_run_is_rejected(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    with refuses(f"No run named notes in {tmp_path}. Train one with lamina train."):
        load_run(folder)


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT + 1, "one", None])
def test_a_run_of_another_format_is_rejected(number, run):
    edit_json(run.path / "run.json", format=number, brand_new="field")
    with refuses(
        f"{run.path}/run.json has format {number!r}, but lamina {__version__} reads format"
        f" {FORMAT}. Use the version of lamina that wrote it, or train a new run."
    ):
        load_run(run.path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"parameters": "many"}, "run.parameters must be a whole number, got 'many'"),
        (
            {"machine": 3},
            (
                "run.machine must be an object with the fields processor, instructions, flags,"
                " cores, threads, platform, got 3"
            ),
        ),
        ({"in_shape": [3, 6.5, 6]}, "run.in_shape[1] must be a whole number, got 6.5"),
        ({"versions": {"torch": 2}}, "run.versions.torch must be text, got 2"),
    ],
)
def test_a_wrong_value_in_run_json_is_named(changes, why, run):
    file = run.path / "run.json"
    edit_json(file, **changes)
    with refuses(f"{file} is damaged: {why}. Restore it from a copy, or train again."):
        load_run(run.path)


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        (
            "recipe",
            {"epochs": 0},
            "run.recipe.epochs must be a whole number from 1 to 100,000, got 0.",
        ),
        ("recipe", [1], "run.recipe must be an object with the fields epochs, "),
        ("net", "Bomb()", "run.net: 'Bomb' is not a layer. "),
        ("net", {"layers": []}, "run.net: expected a layer, got: {'layers': []}. "),
        ("task", {"kind": "riddle"}, "run.task: "),
    ],
)
def test_a_part_that_is_none_is_named(part, value, why, run):
    file = run.path / "run.json"
    edit_json(file, **{part: value})
    with pytest.raises(
        RunError,
        match=(
            f"^{re.escape(f'{file} is damaged: {why}')}.* Restore it from a copy, or train again.$"
        ),
    ):
        load_run(run.path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"text"', "\udc80"])
def test_a_run_json_that_is_no_json_is_named(text, run):
    file = run.path / "run.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(RunError, match=f"^{re.escape(str(file))} is damaged: "):
        load_run(run.path)


def test_every_field_of_run_json_is_needed(run):
    file = run.path / "run.json"
    values = json.loads(file.read_text())
    del values["machine"]
    file.write_text(json.dumps(values))
    with pytest.raises(
        RunError,
        match=(
            f"^{re.escape(str(file))} is damaged: run lacks the field 'machine'; its fields are"
            " net_name,"
        ),
    ):
        load_run(run.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [1.0]},
        {"mean": []},
        {"in_shape": []},
        {"in_shape": [3, 6]},
    ],
)
def test_a_record_whose_parts_do_not_fit_each_other_is_damaged(run, changes):
    edit_json(run.path / "run.json", **changes)
    with pytest.raises(RunError, match="is damaged"):
        load_run(run.path)


@pytest.mark.parametrize(
    "changes", [{"net": None}, {"own_module": {"file": "mine.py", "name": ""}}]
)
def test_a_record_without_exactly_one_net_is_damaged(run, changes):
    file = run.path / "run.json"
    edit_json(file, **changes)
    with refuses(
        f"{file} is damaged: exactly one of net, own_module and timm must be set. "
        "Restore it from a copy, or train again."
    ):
        load_run(run.path)
