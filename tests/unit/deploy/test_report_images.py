"""Which images a report page has room for."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.deploy import report_images
from lamina.deploy.report_images import Cell, Evidence, show_confusions
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Report
from lamina.training.task import task_of
from support.report_runs import make_hostile_images


def collect_evidence(count: int, names: tuple[str, ...] | None = None) -> tuple[Report, Evidence]:
    """The evidence of a model that predicts at random."""
    images = make_hostile_images("single-label", count, "test", names)
    task = task_of(images)
    size = (count, len(images.target_names))
    logits = np.random.default_rng(0).normal(size=size).astype(np.float32)
    outputs = Outputs("test", logits, images.targets, images.names)
    return score_logits(task, logits, images, 0.0), Evidence.collect(task, outputs, images)


def test_many_classes_are_listed_by_pairs():
    report, evidence = collect_evidence(400, tuple(f"class {number}" for number in range(40)))
    values = show_confusions(report, evidence)
    assert values["pair_heads"][-1] == "95 % interval"
    assert len(values["pair_rows"]) == len(values["cells"]) == 50
    assert values["are_some"] and int(values["pairs"]) == len(evidence.confusions.pairs)
    assert "matrix_rows" not in values


def measure(cells: list[Cell]) -> int:
    """The bytes of the images of cells in a page."""
    return sum(4 * len(figure.jpeg) // 3 for cell in cells for figure in cell.figures)


def test_mistakes_have_the_room_first(monkeypatch: pytest.MonkeyPatch):
    report, evidence = collect_evidence(300)

    def show_within(most_bytes: int) -> tuple[list[Cell], list[Cell]]:
        monkeypatch.setattr(report_images, "IMAGES_BYTES", most_bytes)
        cells = show_confusions(report, evidence)["cells"]
        filled = [cell for cell in cells if cell.figures]
        right = [cell for cell in filled if cell.title.endswith(" predicted correctly")]
        return [cell for cell in filled if cell not in right], right

    mistakes, right = show_within(10**9)
    assert len(mistakes) == 6
    assert len(right) == 3
    assert min(len(cell.figures) for cell in mistakes) > 10
    some, none = show_within(measure(mistakes) // 2)
    assert none == []
    assert len(some) == 6  # each has its largest losses
    assert measure(mistakes) / 3 < measure(some) <= measure(mistakes) / 2
    whole, rest = show_within(measure(mistakes) + measure(right) // 2)
    assert [cell.figures for cell in whole] == [cell.figures for cell in mistakes]
    assert 0 < measure(rest) <= measure(right) // 2
