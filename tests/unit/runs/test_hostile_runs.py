"""Files of a run with any values, of any kind and size, are damaged files and nothing worse."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lamina import LaminaError, load_run
from lamina.errors import RunError
from lamina.runs.folder import unpack_checkpoint
from lamina.runs.run import find_runs
from lamina.training.checkpoint import pack_tensors, unpack_tensors
from support.commands import run_lamina
from support.examples import IS_COMPLETE

HOSTILE: tuple[Any, ...] = ([], {}, -5, 10**400, 1e308, None, "x", [[1]], {"0": 5}, True)
"""Each place of a file has one of them, by turns."""


def list_places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each value in JSON; of a long list, its first item."""
    if place:
        yield place
    if isinstance(values, dict):
        for name in values:
            yield from list_places(values[name], (*place, name))
    if isinstance(values, list) and values:
        yield from list_places(values[0], (*place, 0))


def replace_value(values: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def use(path: Path) -> None:
    """Read everything that the run's folder holds."""
    run = load_run(path)
    _ = run.report, run.outputs, run.calibration, run.history, run.is_finished
    run.folder.read_checkpoint()


def choose_values(places):
    """Each place with every hostile value in CI, and with the next of them elsewhere."""
    if IS_COMPLETE:
        return itertools.product(places, HOSTILE)
    return zip(places, itertools.cycle(HOSTILE), strict=False)


@pytest.mark.parametrize("name", ["run.json", "report.json", "calibration.json", "history.jsonl"])
def test_any_value_in_a_json_file_is_read_or_refused(name, stored_runs):
    file = stored_runs["finished"] / name
    first, *rest = file.read_text().splitlines() if name == "history.jsonl" else [file.read_text()]
    values = json.loads(first)
    for place, value in choose_values(list_places(values)):
        changed = json.dumps(replace_value(values, place, value))
        file.write_text("\n".join([changed, *rest]) + "\n")
        try:
            use(file.parent)
        except LaminaError:
            pass
        except Exception as error:
            raise AssertionError(f"{place} = {value!r:.40}: {error!r}") from error


@pytest.mark.nightly  # 400 damaged files; tests on each change replace single values
@pytest.mark.parametrize("name", ["run.json", "report.json", "calibration.json", "history.jsonl"])
def test_a_json_file_with_random_bytes_is_read_or_refused(name, stored_runs):
    file = stored_runs["finished"] / name
    content = file.read_bytes()
    numbers = random.Random(0)
    for _ in range(100):
        changed = bytearray(content)
        for _ in range(numbers.randint(1, 4)):
            changed[numbers.randrange(len(changed))] = numbers.randrange(256)
        file.write_bytes(changed)
        try:
            use(file.parent)
        except LaminaError as error:
            assert str(file.parent) in str(error)
        except Exception as error:
            raise AssertionError(f"{bytes(changed)!r}: {error!r}") from error


def test_any_value_in_a_checkpoint_is_read_or_refused(stored_runs):
    content = (stored_runs["unfinished"] / "state.safetensors").read_bytes()
    tensors, values = unpack_tensors(content, "", "")
    for place, value in choose_values(list_places(values)):
        changed = pack_tensors(tensors, replace_value(values, place, value))
        try:
            unpack_checkpoint(changed, "the checkpoint")
        except RunError:
            pass
        except Exception as error:
            raise AssertionError(f"{place} = {value!r:.40}: {error!r}") from error
    for name, value in {"steps_done": -5, "optimizer": {"groups.0.lr": "high"}}.items():
        with pytest.raises(RunError, match=f"checkpoint.{name}"):
            unpack_checkpoint(pack_tensors(tensors, values | {name: value}), "the checkpoint")


@pytest.mark.parametrize("name", ["run.json", "report.json"])
def test_one_damaged_run_does_not_hide_the_others(name, stored_runs):
    file = stored_runs["finished"] / name
    file.write_text(json.dumps({**json.loads(file.read_text()), "kind": [], "task": []}))
    result = run_lamina("runs", "--runs-dir", str(file.parent.parent))
    assert result.returncode == 0
    assert "unfinished" in result.stdout
    assert re.search(rf"{file}.* is damaged", result.stdout + result.stderr)
    runs, damaged = find_runs(file.parent.parent)
    assert len(runs) + len(damaged) == 2


def test_logits_that_are_no_arrays_are_refused(stored_runs):
    file = stored_runs["finished"] / "logits.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("test_logits.npy", b"no array")
    with pytest.raises(RunError, match=r"logits\.npz is damaged"):
        _ = load_run(file.parent).outputs
