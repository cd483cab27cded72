"""A net, a data set and runs so small that a training takes a moment."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lamina.data import Dataset, Images, Preparation
from lamina.errors import LaminaError, RunError
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, Net, Output, ReLU
from lamina.runs.record import OwnModule
from lamina.runs.run import Run, load_run
from lamina.runs.start import NetChoice, Place, create_run
from lamina.training.custom import NO_PARTS
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from lamina.training.schedule import Knot

NET = Net(Flatten(), Linear(4), ReLU(), Output())
CONV_NET = Net(Conv2d(4, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Output())
RECIPE = Recipe(epochs=2, batch_size=4, precision="fp32", seed=7)


def refuses(message: str, kind: type[LaminaError] = RunError) -> pytest.RaisesExc[LaminaError]:
    """Expect an error with exactly this message."""
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def edit_json(file: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@contextlib.contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Let no file grow larger, as on a disk without room: Python makes an OSError of it."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def images_of(split: str) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    names = tuple(f"{place}.png" for place in range(12))
    return Images(pixels, np.arange(12, dtype=np.int64) % 3, ("cat", "dog", "hen"), names, split)


DATA = Dataset(
    name="pets",
    fingerprint="abc123",
    train=images_of("train"),
    test=images_of("test"),
    size_px=6,
    source="photos/pets",
    preparation=Preparation(size_px=6),
)


WITH_VAL = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test.take(range(6)), split="val"))


def begin_run(
    net: Net | nn.Module,
    data: Dataset,
    recipe: Recipe | None,
    *,
    net_name: str,
    runs_dir: Path,
    origin: object = None,
    name: str | None = None,
    command: tuple[str, ...] = (),
) -> Run:
    """A run of a net with a name, and of a module with an origin, as the command line has them."""
    choice = NetChoice(net_name, net if isinstance(net, Net) else lambda *_: net, origin=origin)
    place = Place(runs_dir, name, command)
    return create_run(data, choice, recipe or Recipe(), NO_PARTS, None, place)


def change_record(run: Run, **changes: object) -> Run:
    """The run with other values in its ``run.json``."""
    record = dataclasses.replace(run.record, **changes)
    run.folder.write_record(record)
    return dataclasses.replace(run, record=record)


def plan_epochs(run: Path, epochs: int) -> None:
    """Let a run with a constant rate that has finished be one that stopped before its end."""
    loaded = load_run(run)
    change_record(loaded, recipe=dataclasses.replace(loaded.record.recipe, epochs=epochs))
    lines = loaded.folder.history_file.read_text().splitlines(keepends=True)
    loaded.folder.history_file.write_text("".join(lines[:-1]))  # without the end
    checkpoint = loaded.folder.read_checkpoint()
    standing = checkpoint.standing
    end = Knot(epochs * standing.steps_per_epoch, 1.0)
    longer = dataclasses.replace(standing, knots=(*standing.knots[:2], end, end))
    loaded.folder.save_checkpoint(dataclasses.replace(checkpoint, standing=longer))


def start(
    folder: Path, recipe: Recipe = RECIPE, net: Net | nn.Module = NET
) -> tuple[Run, Training]:
    """A run as another process would read it, and its training in memory."""
    own = None if isinstance(net, Net) else OwnModule("mine.py", "build")
    run = begin_run(net, DATA, recipe, net_name="tiny", origin=own, runs_dir=folder)
    return load_run(run.path), Training(net, DATA.train, recipe, steps_per_record=1)


def finish_run(run: Run) -> Run:
    """The run, trained to its end."""
    run.train(progress=False)
    return run


def train(run: Run) -> list[str]:
    """Train a run to its end; returns the digests of its weights after each epoch."""
    return digests(finish_run(run))


def digests(run: Run | Path) -> list[str]:
    """The digests of a run's weights after each epoch."""
    opened = load_run(run) if isinstance(run, Path) else run
    return [row["weights"] for row in opened.folder.read_epochs()]
