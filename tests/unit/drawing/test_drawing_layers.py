"""The figures of layers are drawn below a run's learning curves, a line for each layer."""

from __future__ import annotations

from typing import Any

import pytest

from lamina.drawing.curves import draw_curves
from lamina.evaluation.report import Score
from support.histories import history

NAMES = ["1 Conv2d", "2 ReLU", "3 Output"]
ACCURACY = Score("accuracy", 0.5)


def layers_of(names: list[str], epoch: int, **changes: list[float | None]) -> dict[str, list[Any]]:
    places = range(len(names))
    columns = (
        "gradient_norms",
        "weight_norms",
        "update_norms",
        "input_means",
        "input_standard_deviations",
    )
    figures: dict[str, list[Any]] = {
        column: [None if place % 2 else (place + 1) * 10.0**power * epoch for place in places]
        for power, column in enumerate(columns, start=-2)
    }
    inactive = [min(1.0, 0.1 * epoch) if place % 2 else None for place in places]
    return {"names": names, **figures, "dead_fractions": inactive, **changes}


def lines_of(axes) -> list[tuple[list[int], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_each_layer_has_a_line_in_each_panel_that_concerns_it():
    rows = [row | {"layers": layers_of(NAMES, row["epoch"])} for row in history(3)]
    del rows[1]["layers"]  # an epoch that was not looked at
    figure = draw_curves(rows, ACCURACY)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert lines_of(panels["gradient norm"]) == [([1, 3], [0.01, 0.03]), ([1, 3], [0.03, 0.09])]
    for _, ratios in lines_of(panels["update norm / weight norm"]):
        assert ratios == pytest.approx([10, 10])
    ((epochs, shares),) = lines_of(panels["dead units"])
    assert (epochs, shares) == ([1, 3], pytest.approx([0.1, 0.3]))
    first, last = (line.get_color() for line in panels["mean of the input"].lines)
    (rectified,) = (line.get_color() for line in panels["dead units"].lines)
    assert len({tuple(first), tuple(last), tuple(rectified)}) == 3
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == NAMES


def test_a_norm_of_0_and_missing_values_can_be_drawn():
    nothing = [None, None, None]
    dead = layers_of(NAMES, 1, gradient_norms=[0.0, None, 1.0], weight_norms=[0.0, None, 1.0])
    asleep = layers_of(
        NAMES, 2, input_means=nothing, input_standard_deviations=nothing, dead_fractions=nothing
    )
    only_looked = {"gradient_norms": nothing, "weight_norms": nothing, "update_norms": nothing}
    rows = [
        row | {"layers": layers} for row, layers in zip(history(2), (dead, asleep), strict=True)
    ]
    figure = draw_curves(rows, ACCURACY)
    assert sorted(lines_of(figure.axes[2])) == [([1, 2], [1.0, 0.06]), ([2], [0.02])]
    figure.canvas.draw()
    rows = [row | {"layers": layers_of(NAMES, 1, **only_looked)} for row in history(1)]
    draw_curves(rows, ACCURACY).canvas.draw()


@pytest.mark.parametrize(
    "norms",
    [[0.5, None, 1.2], [3.0, None, 3.1], [3.0, None, 3.0], [0.01, None, 30.0], [1e-9, None, 1.0]],
    ids=str,
)
def test_norms_have_several_ticks_however_near_or_far_they_are(norms):
    rows = [
        row | {"layers": layers_of(NAMES, row["epoch"], gradient_norms=norms)} for row in history(2)
    ]
    axes = draw_curves(rows, ACCURACY).axes[2]
    low, high = axes.get_ylim()
    assert 3 <= sum(low <= tick <= high for tick in axes.get_yticks()) <= 12


def test_of_one_epoch_each_panel_has_a_point_for_each_layer():
    rows = [row | {"layers": layers_of(NAMES, row["epoch"])} for row in history(1)]
    figure = draw_curves(rows, ACCURACY)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert lines_of(panels["gradient norm"]) == [([1], [0.01]), ([1], [0.03])]
    low, high = panels["dead units"].get_ylim()
    assert low < 0 < 1 < high  # markers at both ends are whole


def test_of_many_layers_some_are_named():
    names = [f"{place} {kind}" for place, kind in enumerate(("Conv2d", "ReLU") * 20, start=1)]
    rows = [row | {"layers": layers_of(names, row["epoch"])} for row in history(100)]
    figure = draw_curves(rows, ACCURACY)
    assert len(figure.axes[2].lines) == 20
    named = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
    assert named == names[::3]
    figure.draw_without_rendering()
