"""The words and the table of a comparison."""

from __future__ import annotations

import pytest

from lamina.evaluation.paired_comparison import PairedComparison


def make_comparison(**changed) -> PairedComparison:
    values = {
        "a": "one",
        "b": "two",
        "metric": "accuracy",
        "split": "test",
        "a_score": 0.8,
        "b_score": 0.9,
        "level": 0.95,
        "difference": -0.1,
        "interval": (-0.2, -0.04),
        "seeds_interval": (-0.1, -0.05),
        "differences": (-0.1, -0.1),
        "images": 2000,
        "margin": 0.005,
        "seeds_to_detect": None,
        "image_half_width": 0.004,
        "verdict": "worse",
    }
    return PairedComparison(**values | changed)


LIMITED = {
    "verdict": "undecided",
    "difference": 0.0,
    "image_half_width": 0.009,
    "interval": (-0.02, 0.01),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "A is worse by 10.0 points (95 % interval 4.0 to 20.0; 2 seeds, 2,000 images)"),
        (
            {"interval": (-0.2, 0.01), "level": 0.9875},
            (
                "A is worse by 10.0 points (98.75 % interval −1.0 to 20.0; 2 seeds, 2,000 images;"
                " significant by Holm's method)"
            ),
        ),
        (
            {"verdict": "equal", "difference": 0.001, "interval": (-0.0001, 0.002)},
            "equal within 0.5 points (95 % interval 0.0 to 0.2; 2 seeds, 2,000 images)",
        ),
        (
            {"verdict": "undecided", "interval": (-0.2, 0.01), "seeds_to_detect": 24},
            (
                "undecided: −20.0 to 1.0 points (95 % interval; 2 seeds, 2,000 images); about 24"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 4,
                "seeds_interval": (-0.008, 0.006),
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 4 seeds, 2,000 images); more seeds"
                " will not help: 2,000 images leave ±0.9 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 4,
                "seeds_interval": (-0.008, 0.012),
                "seeds_to_detect": 165,
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 4 seeds, 2,000 images); about 165"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {
                **LIMITED,
                "differences": (0.0,) * 3,
                "seeds_interval": (-0.008, 0.006),
                "seeds_to_detect": 165,
            },
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 3 seeds, 2,000 images); about 165"
                " seeds would detect 0.5 points"
            ),
        ),
        (
            {"verdict": "undecided", "difference": 0.0, "interval": (-0.02, 0.01)},
            (
                "undecided: −2.0 to 1.0 points (95 % interval; 2 seeds, 2,000 images); perhaps more"
                " than 1,000 seeds are needed to detect 0.5 points"
            ),
        ),
        (
            {"verdict": "undecided", "differences": (-0.1,), "interval": (-0.02, 0.01)},
            (
                "undecided: −2.0 to 1.0 points (95 % interval; one pair of models, 2,000 images);"
                " other seeds may differ"
            ),
        ),
    ],
)
def test_the_words_of_each_verdict(changed, words):
    assert make_comparison(**changed).words == words


def test_a_notebook_shows_the_verdict_and_a_table():
    shown = make_comparison()._repr_html_()
    assert "A is worse by 10.0 points" in shown and "<table>" in shown
    assert "80.00 %" in shown and "for new seeds on these images: −10.0 to −5.0 points" in shown
