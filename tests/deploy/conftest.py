from __future__ import annotations

import pytest
from report_runs import NAMES, make_dataset, train

from lamina.data import Dataset
from lamina.runs.run import Run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Dataset]]:
    """For each kind of target a run with val and test, and its data."""
    found = {}
    for kind in NAMES:
        dataset = make_dataset(kind, "val", "test")
        found[kind] = train(tmp_path_factory.mktemp(kind), dataset), dataset
    return found
