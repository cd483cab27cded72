"""A run of a small net that has been begun, and its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.runs.record import RunRecord
from lamina.runs.run import Run, load_run
from lamina.runs.start import create_folder
from lamina.training.loop import Training
from support.runs import CONV_NET, DATA, RECIPE, begin_run
from support.trainings import finish


@pytest.fixture(scope="module")
def training() -> Training:
    """A training of ``CONV_NET`` that has ended."""
    return finish(Training(CONV_NET, DATA.train, RECIPE))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The record of a run of ``CONV_NET``."""
    begun = begin_run(
        CONV_NET,
        DATA,
        RECIPE,
        net_name="tiny",
        runs_dir=tmp_path_factory.mktemp("runs"),
        command=("lamina", "train", "tiny", "--data", "photos/pets"),
    )
    return begun.record


@pytest.fixture
def run(tmp_path: Path, record: RunRecord) -> Run:
    """A new folder with that record, ``runs/first``."""
    return load_run(create_folder(tmp_path / "runs", record, "first"))
