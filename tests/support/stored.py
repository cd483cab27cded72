"""Runs that an earlier version of lamina has written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).parents[1] / "unit" / "runs" / "stored-runs.zip"


@pytest.fixture
def stored_runs(tmp_path: Path) -> dict[str, Path]:
    """Copies of a finished run, and of one that was stopped after its first of three epochs.

    Both were trained on ``shapes`` at 16 px: ``tests/unit/runs/store_runs.py`` made them.
    """
    shutil.unpack_archive(ARCHIVE, tmp_path / "runs")
    return {folder.name: folder for folder in (tmp_path / "runs").iterdir()}
