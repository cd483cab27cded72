"""The command and the Python that repeat a run without the studio."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lamina.deploy.studio.data_folder import check_is_here
from lamina.errors import LaminaError
from lamina.nets.layers import LAYERS
from lamina.runs.continuing import find_checkpoint
from lamina.runs.folder import STUDY_FILE
from lamina.runs.loading import load_run
from lamina.runs.record import RunRecord
from lamina.runs.resuming import find_dataset

PLACES = "--name", "--runs-dir"  # of the run; a new run gets its own
# options that may name files, besides the data
FILES = ("--labels-from", "--group-from")


def describe_reproduction(path: Path) -> dict[str, Any]:
    """A command and Python that train the run again, or empty, and how the results may differ."""
    run = load_run(path)
    record, python, remarks = run.record, "", []
    try:
        check_is_here(record.data.source)
        find_dataset(run)  # reads the data again, which may have changed
        python = write_python(record)
    except LaminaError as error:
        remarks.append(str(error))
    option = ""
    for word in record.command:
        name, _, value = word.partition("=")
        file = value if name in FILES else word if option in FILES or word.endswith(".py") else ""
        option = name if name.startswith("--") else option
        # any text may come
        if os.path.isfile(file):  # noqa: PTH113
            text = f"The command reads {file} again, which may have changed"
            remarks.append(
                text + ("; the Python contains what the training read." if python else ".")
            )
    if (path.parent / STUDY_FILE).exists():
        remarks.append("The run is part of a study, which the command repeats as a whole.")
    if record.late_end is not None:
        done = len(run.folder.history.epochs())
        text = (
            f"A time limit or Finish now ended the training after epoch {done}. The command may end"
            " at another one."
        )
        remarks.append(
            text
            + f" The Python trains all {record.recipe.epochs} epochs of the recipe." * bool(python)
        )
    elif not run.is_finished:
        done, planned = len(run.folder.history.epochs()), record.epochs
        remarks.append(
            f"The run has trained {done} of {planned} epochs. What follows trains all {planned}."
        )
    if record.considered:
        text = "lamina chose the net by measurement. The command may choose another"
        remarks.append(text + ("; the Python does not." if python else "."))
    return {"command": write_command(record.command), "python": python, "remarks": remarks}


def write_command(words: Sequence[str]) -> str:
    """The command of a run, for a new run."""
    kept, following = [], iter(words)
    for word in following:
        if word in PLACES:
            next(following, None)
        elif word not in ("--json", "--progress") and not word.startswith(
            tuple(f"{place}=" for place in PLACES)
        ):
            kept.append(word)
    return shlex.join(kept)


def write_python(record: RunRecord) -> str:
    """Python that repeats the training, from the same checkpoint if it began at one."""
    if record.net is None:
        raise LaminaError(
            "The run does not contain its net as layers, so there is no Python to copy."
        )
    start = record.started_from
    if record.parts:
        raise LaminaError("The training used your own functions, so there is no Python to copy.")
    if start is not None and start.epoch is None:
        raise LaminaError(
            f"The training used the weights of {start.run}, so there is no Python to copy."
        )
    train = f"run.train({'rewind_on_nan=True' * record.rewind_on_nan})\n"
    recipe = f"recipe = lamina.{record.recipe!r}\n"
    if start is not None:
        find_checkpoint(Path(start.run), start.epoch or 0.0)  # raises an error if it is gone
        source = f"{start.run}@{start.epoch:.10g}"
        run = f"run = lamina.start_run(recipe=recipe, start_from={source!r})"
        return f"import lamina\n\n{recipe}{run}\n{train}"
    layers = ", ".join(["Net", *sorted(name for name in LAYERS if f"{name}(" in repr(record.net))])
    head = f"import lamina\nfrom lamina.nets import {layers}\n"
    written = "".join(f"    {layer!r},\n" for layer in record.net)
    net = f"net = Net(\n{written})\n{recipe}"
    preparation = record.data.preparation
    defaults = {field.name: field.default for field in fields(preparation)}
    options = [
        f"{name}={value!r}" for name, value in vars(preparation).items() if value != defaults[name]
    ]
    prepared = f"lamina.Preparation({', '.join(options)})"
    data = f"data = lamina.load_data({record.data.source!r}, {prepared})\n"
    return f"{head}\n{data}{net}run = lamina.start_run(data, net, recipe)\n{train}"
