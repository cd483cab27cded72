"""predict --confidence-threshold and --coverage: predictions kept, and their accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from lamina.evaluation.intervals import wilson_interval
from support.commands import run_lamina


def test_a_damaged_calibration_is_named(shapes_run, workplace, image_set):
    file = shapes_run / "calibration.json"
    before = file.read_text()
    try:
        file.write_text(before.replace("val", "other"))
        done = run_lamina("predict", shapes_run, image_set / "test/dark/0.png")
        assert done.returncode == 2
        assert f"{file} is damaged: " in done.stderr
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--confidence-threshold", "80"),
            (
                "--confidence-threshold is 80; it must be between 0 and 1. Use"
                " --confidence-threshold 0.9."
            ),
        ),
        (("--coverage", "1"), "--coverage is 1; it must be between 0 and 1. Use --coverage 0.9."),
        (
            ("--coverage", "0.9", "--top", "2"),
            "--coverage chooses the classes to print. Leave out --top.",
        ),
        (
            ("--coverage", "0.9999"),
            (
                "--coverage is 0.9999, but RUN has only 80 val images, too few to fit it. "
                "Use a lower --coverage, or train with a larger --val."
            ),
        ),
    ],
)
def test_doubts_that_cannot_be_had_are_said(words, message, shapes_run, workplace, image_set):
    done = run_lamina("predict", shapes_run, image_set / "test/dark/0.png", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}".replace("RUN", str(shapes_run))


@pytest.mark.parametrize(("coverage", "images"), [(0.9, 36), (0.8, 800), (0.95, 1000)])
def test_the_interval_of_a_coverage_is_near_the_beta_quantiles(coverage, images):
    place = int(np.ceil((images + 1) * coverage))
    exact = beta.ppf([0.025, 0.975], place, images + 1 - place)
    found = wilson_interval(place, images)
    assert (found.low, found.high) == pytest.approx(exact, abs=0.01)
