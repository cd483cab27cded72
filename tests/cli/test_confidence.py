"""predict --confidence-threshold: invalid values, and damaged calibrations."""

from __future__ import annotations

import pytest

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
    ],
)
def test_doubts_that_cannot_be_had_are_said(words, message, shapes_run, workplace, image_set):
    done = run_lamina("predict", shapes_run, image_set / "test/dark/0.png", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"lamina: {message}".replace("RUN", str(shapes_run))
