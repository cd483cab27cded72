"""The words and the table of a comparison."""

from __future__ import annotations

from dataclasses import fields

import pytest
from scipy import stats

from lamina.evaluation.paired import Effect
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.values import from_json_values

IMAGES = 2000


def make_effect(difference: float, half_width: float, *, seeds: int = 2) -> Effect:
    """An effect whose 95 % interval has this half-width, due to the images alone."""
    error = half_width / float(stats.t.ppf(0.975, IMAGES - 1))
    return Effect(
        difference, seeds, IMAGES, seed_variance=0.0, image_variance=IMAGES * error**2, limit=1.0
    )


def make_comparison(effect: Effect, **changed) -> PairedComparison:
    values = {
        "a": "one",
        "b": "two",
        "metric": "accuracy",
        "split": "test",
        "a_score": 0.8,
        "b_score": 0.9,
        "effect": effect,
        "level": 0.95,
        "last_level": 0.95,
        "differences": (effect.difference,) * effect.seeds,
        "images": IMAGES,
        "margin": 0.005,
    }
    return PairedComparison(**values | changed)


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (
            make_effect(-0.1, 0.06, seeds=2),
            "A is worse by 10.0 points (95 % interval 4.0 to 16.0; 2 seeds, 2,000 images)",
        ),
        (
            make_effect(0.004, 0.003, seeds=2),
            "A is better by 0.4 points, less than the margin of 0.5 points, (95 % interval 0.1 to"
            " 0.7; 2 seeds, 2,000 images)",
        ),
        (
            make_effect(0.001, 0.002, seeds=2),
            "equal within 0.5 points (95 % interval −0.1 to 0.3; 2 seeds, 2,000 images)",
        ),
        (
            make_effect(0.0, 0.009, seeds=4),
            "undecided: −0.9 to 0.9 points (95 % interval; 4 seeds, 2,000 images); more seeds will"
            " not help: 2,000 images leave ±0.9 points",
        ),
        (
            make_effect(0.0, 0.009, seeds=3),
            "undecided: −0.9 to 0.9 points (95 % interval; 3 seeds, 2,000 images); perhaps more"
            " than 1,000 seeds are needed to detect 0.5 points",
        ),
        (
            make_effect(-0.1, 0.11, seeds=1),
            "undecided: −21.0 to 1.0 points (95 % interval; one pair of models, 2,000 images);"
            " other seeds may differ",
        ),
    ],
)
def test_the_words_of_each_verdict(effect, words):
    assert make_comparison(effect).headline() == words


def test_seeds_that_differ_much_may_help():
    effect = Effect(0.002, seeds=4, images=IMAGES, seed_variance=1e-4, image_variance=1e-3)
    comparison = make_comparison(effect, differences=(-0.008, 0.012, -0.008, 0.012))
    advice = f"; about {effect.seeds_to_detect(0.005)} seeds would detect 0.5 points"
    assert effect.seeds_to_detect(0.005) > 4 and comparison.headline().endswith(advice)


@pytest.mark.parametrize("difference", [-0.02, -0.01, 0.0, 0.003, 0.01, 0.011])
@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_the_verdict_is_that_of_the_interval(difference, level):
    comparison = make_comparison(make_effect(difference, 0.01), level=level)
    low, high = comparison.interval
    assert (comparison.verdict in ("better", "worse")) == (low > 0 or high < 0)
    assert f"{100 * level:g} % interval" in comparison.headline()


def test_a_comparison_is_printed_and_shown_in_a_notebook():
    comparison = make_comparison(make_effect(-0.1, 0.06), differences=(-0.12, -0.08))
    lines = str(comparison).split("\n")
    assert lines[0] == comparison.headline()
    assert [line.split()[:2] for line in lines[2:4]] == [["A", "one"], ["B", "two"]]
    assert lines[-1].startswith("for new seeds on these images: ")
    shown = comparison._repr_html_()
    assert "A is worse by 10.0 points" in shown and "<table>" in shown and "<svg" in shown
    assert "80.00 %" in shown and "A is better in 0 of 2 pairs" in shown


def test_json_has_what_follows_from_the_effect():
    comparison = make_comparison(make_effect(-0.1, 0.06))
    values = comparison.to_json()
    assert (values["event"], values["verdict"], values["seeds"]) == ("comparison", "worse", 2)
    assert values["interval"] == pytest.approx([-0.16, -0.04])
    stored = {field.name: values[field.name] for field in fields(PairedComparison)}
    assert from_json_values(PairedComparison, stored, "result") == comparison
