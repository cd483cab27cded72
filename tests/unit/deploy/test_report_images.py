"""Which images a report page has room for."""

from __future__ import annotations

import re

import numpy as np

from lamina.deploy.report_images import Evidence, show_confusions
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.training.task import task_of
from support.report_runs import Outline, make_hostile_images


def test_many_classes_are_listed_by_pairs():
    names = tuple(f"class {number}" for number in range(40))
    images = make_hostile_images("single-label", 400, "test", names)
    task = task_of(images)
    logits = np.random.default_rng(0).normal(size=(400, 40)).astype(np.float32)
    report = score_logits(task, logits, images, 0.0)
    evidence = Evidence.collect(task, Outputs("test", logits, images.targets, images.names), images)
    shown = Outline(show_confusions(report, evidence))
    assert "95 % interval" in shown.texts
    assert shown.tags.count("tr") == 51
    listed = (
        r"Confused pairs: \d+; the table lists the 50 with the highest lower confidence bound\."
    )
    assert re.search(listed, " ".join(shown.texts))


def test_mistakes_have_the_room_first(monkeypatch):
    images = make_hostile_images("single-label", 300, "test")
    task = task_of(images)
    logits = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    report = score_logits(task, logits, images, 0.0)
    evidence = Evidence.collect(task, Outputs("test", logits, images.targets, images.names), images)

    def show_within(most_bytes):
        monkeypatch.setattr("lamina.deploy.report_images.IMAGES_BYTES", most_bytes)
        cells = re.findall(
            r'<h3>(.*?)</h3><div class="images">(.*?)</div>', show_confusions(report, evidence)
        )
        figures = [
            (" predicted correctly" in title, re.findall("<figure>.*?</figure>", own))
            for title, own in cells
        ]
        return [[own for right, own in figures if right == is_right] for is_right in (False, True)]

    def measure(cells):
        return sum(len(figure) for own in cells for figure in own)

    mistakes, right = show_within(10**9)
    assert len(mistakes) == 6
    assert len(right) == 3
    assert min(map(len, mistakes)) > 10
    some, none = show_within(measure(mistakes) // 2)
    assert none == []
    assert len(some) == 6  # each has its largest losses
    assert measure(mistakes) / 3 < measure(some) <= measure(mistakes) / 2
    whole, rest = show_within(measure(mistakes) + measure(right) // 2)
    assert whole == mistakes
    assert 0 < measure(rest) <= measure(right) // 2
