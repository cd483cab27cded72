"""The images of a fold are freed when its run has ended."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

from lamina.cli.session import play
from lamina.cli.terminal import Terminal
from lamina.runs.start import NetChoice
from lamina.studies.cross_validation import iter_folds
from lamina.studies.experiment import Request
from lamina.studies.study import RunSetup, Started
from support.runs import DATA, NET, RECIPE


def test_only_the_images_of_the_last_run_are_in_memory(tmp_path):
    folds: list[weakref.ref[Any]] = []
    counts = []

    def watch() -> Iterator[Any]:
        request = Request(NetChoice("net", NET), RECIPE)
        setup = RunSetup(tmp_path, "cv", jobs=1)
        for event in iter_folds(DATA, 4, request, None, setup):
            if isinstance(event, Started):
                folds.append(weakref.ref(event.run.dataset))
                gc.collect()
                counts.append(sum(fold() is not None for fold in folds))
            yield event

    run, _ = play(watch(), Terminal(is_quiet=True), lambda *_: None, is_brief=True)
    assert len(counts) == 5
    assert max(counts) <= 2  # while a run starts, the one before it is still the last
    assert run.path == tmp_path / "cv" / "final"
