"""A search of two trials."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lamina.data import Dataset, Images
from lamina.files import write_json
from lamina.runs.folder import STUDY_FILE
from lamina.runs.start import as_net_choice
from lamina.studies import finals
from lamina.studies.search import Search
from lamina.studies.trials import HeldTrial, Limits, Trials, open_trials
from support.forking import MODULE

NET = "Flatten(), Linear(4), ReLU(), Output()"
QUICKLY = f"""
from lamina.studies import finals
finals.FINALISTS, finals.SEEDS, finals.TESTS = 2, 2, 2
{MODULE}
"""
"""lamina with few finals, for a process."""


@pytest.fixture
def few_finals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two finalists with two seeds each."""
    for name in ("FINALISTS", "SEEDS", "TESTS"):
        monkeypatch.setattr(finals, name, 2)


def noise_with_val(count: int) -> Dataset:
    """So many images of noise in train and as many in val, of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, count, 8, 8, 3), dtype=np.uint8)
    targets = np.arange(count) % 2
    return Dataset.from_images(
        Images.from_arrays(pixels[0], targets),
        val=Images.from_arrays(pixels[1], targets, split="val"),
    )


def finish(events):
    """The result of a generator, whose events are dropped."""
    while True:
        try:
            next(events)
        except StopIteration as ended:
            return ended.value


def open_search(folder, data, over=None, **more) -> tuple[Search, Trials]:
    """A search of two trials, with the trials in its folder."""
    settings = {"epochs": 2, **more}
    ranges = over or {"lr": "0.001..0.1:log"}
    search = Search(NET, None, settings, ranges, {}, data, as_net_choice)
    return search, open_again(search, folder)


def open_again(search, folder) -> Trials:
    """The trials of a search, as another worker opens them."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(search.to_json()))
    if not (folder / STUDY_FILE).exists():
        write_json(folder / STUDY_FILE, {"settings": settings})
    return open_trials(None, folder, settings)


def take(search, trials) -> HeldTrial:
    """The next trial of a search."""
    held, end = trials.take(search.ranges, Limits())
    assert held is not None, end
    return held
