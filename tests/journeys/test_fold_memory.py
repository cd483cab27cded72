"""The images of a fold are freed when its run has ended."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from lamina.cli.session import play
from lamina.cli.terminal import Terminal
from lamina.data.held_out import hold_out
from lamina.runs.start import NetChoice
from lamina.studies import cross_validation
from lamina.studies.cross_validation import iter_folds
from lamina.studies.experiment import Request
from lamina.studies.study import RunSetup
from support.runs import DATA, NET, RECIPE


def test_only_the_images_of_one_run_are_in_memory(tmp_path, monkeypatch):
    folds: list[weakref.ref[Any]] = []
    counts = []

    def watch(*arguments: Any) -> Any:
        gc.collect()
        counts.append(sum(fold() is not None for fold in folds))
        part = hold_out(*arguments)
        folds.append(weakref.ref(part))
        return part

    monkeypatch.setattr(cross_validation, "hold_out", watch)
    request = Request(NetChoice("net", NET), RECIPE)
    events = iter_folds(DATA, 4, request, None, RunSetup(tmp_path, "cv", jobs=1))
    run, _ = play(events, Terminal(is_quiet=True), lambda *_: None, is_brief=True)
    assert counts == [0] * 6  # to choose, then of each run
    assert run.path == tmp_path / "cv" / "final"
