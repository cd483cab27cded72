"""The command and the Python code that repeat a run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError, escape, plural
from lamina.nets.layers import LAYERS
from lamina.runs.folder import STUDY_FILE
from lamina.runs.record import RunRecord
from lamina.runs.run import find_dataset, load_run

PLACES = ("--name", "--runs-dir")  # of the run; a new run gets its own
SWITCHES = ("--json", "--progress")
TRAINING = ("train", "compare", "ablate", "tune")  # commands that train runs
# options that may name files, besides the data
FILES = ("--labels-from", "--group-from")


def describe_reproduction(path: Path) -> dict[str, Any]:
    """A command and Python code that train the run again, if any, and how results may differ."""
    run = load_run(path)
    record = run.record
    done = len(run.folder.read_epochs())
    python = ""
    remarks = []
    try:
        find_dataset(run)  # reads the data again, which may have changed
        python = write_python(record, run.epochs or max(1, done))
    except LaminaError as error:
        remarks.append(str(error))
    command = write_command(record.command)
    files: list[str] = []
    if command:
        files = list_files(record.command)
    elif record.command:
        remarks.append(
            "The command of the run does not train with lamina, or has control characters, so it is"
            " not shown."
        )
    for file in files:
        exact = "; the Python code contains what the run read." if python else "."
        remarks.append(f"The command reads {file} again, which may have changed{exact}")
    if (path.parent / STUDY_FILE).exists():
        remarks.append("The run is part of a study, which the command repeats as a whole.")
    if run.epochs != record.recipe.epochs:
        remark = (
            f"A time limit or Finish now ended training after epoch {done}. The command may end"
            " after a different epoch."
        )
        if python:
            remark += f" The Python code trains {plural(run.epochs or done, 'epoch', 'epochs')}."
        remarks.append(remark)
    elif not run.is_finished:
        planned = run.epochs
        remarks.append(
            f"The run has trained {done} of {planned} epochs. The command and the code below train"
            f" all {planned}."
        )
    if record.considered:
        exact = "; the Python code does not." if python else "."
        remarks.append(
            f"lamina chose the net by measurement. The command may choose another net{exact}"
        )
    return {"command": command, "python": python, "remarks": remarks}


def list_files(words: Sequence[str]) -> list[str]:
    """The files that a command reads, besides its data."""
    option = ""
    files = []
    for word in words:
        name, _, value = word.partition("=")
        file = value if name in FILES else word
        if name.startswith("--"):
            option = name
        is_named = option in FILES or word.endswith(".py")
        # the words may be any text
        if is_named and os.path.isfile(file):  # noqa: PTH113
            files.append(file)
    return files


def write_command(words: tuple[str, ...]) -> str:
    """The command of a run, without its name and folder, for a new run.

    Empty unless it trains with lamina and can be shown as it is: the run may come from others.
    """
    is_training = any(words[:2] == ("lamina", name) for name in TRAINING)
    if not is_training or any(word != escape(word) for word in words):
        return ""
    repeated = []
    is_place = False
    for word in words:
        option = word.partition("=")[0]
        if not (is_place or option in PLACES or word in SWITCHES):
            repeated.append(word)
        is_place = word in PLACES
    return shlex.join(repeated)


def write_python(record: RunRecord, epochs: int) -> str:
    """Python code that repeats the run.

    Empty for a pretrained net, which the run does not contain as layers.
    """
    if record.net is None:
        return ""
    start = record.started_from
    if record.parts:
        raise LaminaError("The run used your own functions, so there is no Python code to copy.")
    if start is not None:
        raise LaminaError(
            f"The run used the weights of {start.run}, so there is no Python code to copy."
        )
    train = "run.train()\n"
    recipe = f"recipe = lamina.{replace(record.recipe, epochs=epochs)!r}\n"
    layers = ", ".join(["Net", *sorted(name for name in LAYERS if f"{name}(" in repr(record.net))])
    head = f"import lamina\nfrom lamina.nets import {layers}\n"
    written = "".join(f"    {layer!r},\n" for layer in record.net)
    net = f"net = Net(\n{written})\n{recipe}"
    changed = record.data.preparation.to_json()
    options = [f"{name}={value!r}" for name, value in changed.items()]
    prepared = f"lamina.Preparation({', '.join(options)})"
    data = f"data = lamina.load_data({record.data.source!r}, {prepared})\n"
    return f"{head}\n{data}{net}run = lamina.start_run(data, net, recipe)\n{train}"
