from __future__ import annotations

import json

import pytest

from lamina.errors import NetError
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Field,
    Flatten,
    GlobalAvgPool,
    Linear,
    Net,
    Output,
    ReLU,
    Residual,
    Row,
    summarize,
)

NET = Net(
    Conv2d(8, 3, padding="same"),
    Residual(Conv2d(16, 3, stride=2, padding="same"), ReLU(), shortcut=(Conv2d(16, 1, stride=2),)),
    GlobalAvgPool(),
    Output(),
)


def test_rows_of_a_plain_net_are_its_layers():
    summary = summarize(Net(Conv2d(8, 3), BatchNorm(), Flatten(), Output()), (3, 8, 8), 10)
    assert summary.rows == (
        Row("Conv2d(8, 3)", 0, (8, 6, 6), 224, 7_776, Field((3, 3), (1, 1))),
        Row("BatchNorm()", 0, (8, 6, 6), 16, 0, Field((3, 3), (1, 1))),
        Row("Flatten()", 0, (288,), 0, 0, Field((3, 3), (1, 1))),
        Row("Output(units=10)", 0, (10,), 2_890, 2_880, None),
    )
    assert (summary.parameters, summary.multiply_adds) == (3_130, 10_656)


def test_layers_inside_a_residual_are_indented_and_counted_once():
    assert (
        str(summarize(NET, (3, 32, 32), 10))
        == """\
layer                                        output  parameters  multiply-adds  receptive field
Conv2d(8, 3, padding='same')                8×32×32         224        221,184           3×3 px
Residual                                   16×16×16           0              0           5×5 px
  Conv2d(16, 3, stride=2, padding='same')  16×16×16       1,168        294,912           5×5 px
  ReLU()                                   16×16×16           0              0           5×5 px
  shortcut                                 16×16×16           0              0           5×5 px
    Conv2d(16, 1, stride=2)                16×16×16         144         32,768           3×3 px
GlobalAvgPool()                                  16           0              0      whole image
Output(units=10)                                 10         170            160      whole image
total                                                     1,706        549,024"""
    )


def test_depth_is_how_deep_a_layer_is_nested():
    assert [(row.depth, row.layer) for row in summarize(NET, (3, 32, 32), 10).rows] == [
        (0, "Conv2d(8, 3, padding='same')"),
        (0, "Residual"),
        (1, "Conv2d(16, 3, stride=2, padding='same')"),
        (1, "ReLU()"),
        (1, "shortcut"),
        (2, "Conv2d(16, 1, stride=2)"),
        (0, "GlobalAvgPool()"),
        (0, "Output(units=10)"),
    ]


def test_json_holds_every_figure():
    summary = summarize(Net(Conv2d(8, 3), Flatten(), Output()), (3, 8, 8), 10)
    assert json.loads(json.dumps(summary.to_json())) == {
        "rows": [
            {
                "layer": "Conv2d(8, 3)",
                "depth": 0,
                "out_shape": [8, 6, 6],
                "parameters": 224,
                "multiply_adds": 7_776,
                "field": {"size_px": [3, 3], "step_px": [1, 1], "start_px": [0, 0]},
            },
            {
                "layer": "Flatten()",
                "depth": 0,
                "out_shape": [288],
                "parameters": 0,
                "multiply_adds": 0,
                "field": {"size_px": [3, 3], "step_px": [1, 1], "start_px": [0, 0]},
            },
            {
                "layer": "Output(units=10)",
                "depth": 0,
                "out_shape": [10],
                "parameters": 2_890,
                "multiply_adds": 2_880,
                "field": None,
            },
        ],
        "parameters": 3_114,
        "multiply_adds": 10_656,
    }


def test_rejects_a_net_that_cannot_be_trained():
    with pytest.raises(NetError, match=r"^layer 1 of 1, Linear\(10\): expected a vector \(F,\), got \(3, 8, 8\)"):
        summarize(Net(Linear(10)), (3, 8, 8), 10)


def test_in_a_notebook_a_net_and_its_summary_are_tables():
    shown = NET._repr_html_()
    assert shown.count("<tr>") == len(NET) + 1
    assert "Conv2d(8, 3, padding=&#x27;same&#x27;)" in shown
    assert "1,706" in summarize(NET, (3, 32, 32), 10)._repr_html_()
