"""Every benchmark starts, and shows its options."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STORING_NO_ROWS = ("verdict_runs.py",)  # it stores the scores that verdicts.py reads


@pytest.mark.nightly  # benchmarks are run by hand, seldom; they import much
def test_every_benchmark_has_help(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    files = [
        file
        for file in sorted(BENCHMARKS.glob("*.py"))
        if "__main__" in file.read_text(encoding="utf-8")
    ]
    assert files
    for file in files:
        monkeypatch.setattr(sys, "argv", [file.name, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(file), run_name="__main__")
        assert ended.value.code == 0, file.name
        stores_rows = "--json" in capsys.readouterr().out
        assert stores_rows == (file.name not in STORING_NO_ROWS), file.name
