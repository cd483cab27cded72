"""A search of two trials."""

from __future__ import annotations

import numpy as np

from lamina.data import Dataset, Images
from lamina.runs.start import as_net_choice
from lamina.studies.search import Search
from lamina.studies.trials import Trials, connect, create_study, open_trials
from support.forking import MODULE

NET = "Flatten(), Linear(4), ReLU(), Output()"
QUICKLY = f"""
from lamina.studies import finals, trials
finals.PLANS = ((2, 2),)
trials.HEARTBEAT_SECONDS, trials.GRACE_SECONDS = 1, 3
{MODULE}
"""
"""lamina with few finals and short heartbeats, for a process."""


def noise_with_val(count: int) -> Dataset:
    """So many images of noise in train and as many in val, of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, count, 8, 8, 3), dtype=np.uint8)
    targets = np.arange(count) % 2
    return Dataset.from_images(
        Images.from_arrays(pixels[0], targets),
        val=Images.from_arrays(pixels[1], targets, split="val"),
    )


def open_search(folder, data, **more) -> tuple[Search, Trials]:
    """A search of two trials, without leader."""
    settings = {"epochs": 2, **more}
    search = Search(NET, None, settings, {"lr": "0.001..0.1:log"}, {}, data, as_net_choice)
    folder.mkdir(parents=True, exist_ok=True)
    storage = connect(None, folder)
    create_study(storage, folder.name, search.to_json(), str(folder))
    trials = open_trials(storage, folder.name, folder.parent)
    trials.study.set_user_attr("limits", {"trials": 2, "until": None})
    return search, trials
