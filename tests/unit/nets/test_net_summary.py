from __future__ import annotations

import json
import re

import numpy as np
import pytest

from lamina import Dataset, Images
from lamina.errors import NetError
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Field,
    Flatten,
    GlobalAvgPool,
    Layer,
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
layer                                          output  parameters  multiply-adds  receptive field
1 Conv2d(8, 3, padding='same')                8×32×32         224        221,184           3×3 px
2 Residual                                   16×16×16           0              0           5×5 px
    Conv2d(16, 3, stride=2, padding='same')  16×16×16       1,168        294,912           5×5 px
    ReLU()                                   16×16×16           0              0           5×5 px
    shortcut                                 16×16×16           0              0           5×5 px
      Conv2d(16, 1, stride=2)                16×16×16         144         32,768           3×3 px
3 GlobalAvgPool()                                  16           0              0      whole image
4 Output(units=10)                                 10         170            160      whole image
total                                                       1,706        549,024"""
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
    with pytest.raises(
        NetError, match=r"^layer 1 of 1, Linear\(10\): expected a vector \(F,\), got \(3, 8, 8\)"
    ):
        summarize(Net(Linear(10)), (3, 8, 8), 10)


def test_in_a_notebook_a_summary_is_a_table():
    summary = summarize(NET, (3, 32, 32), 10)
    shown = summary._repr_html_()
    (table,) = re.findall("<table.*</table>", shown)
    assert "Conv2d(8, 3, padding=&#39;same&#39;)" in table
    assert "Output(units=10)" in table
    assert "1,706" in table
    assert repr(summary) == "Summary(4 layers, 1,706 parameters, 549,024 multiply-adds)"


class Rows(Layer):
    """A layer that expects channels, height and width."""

    def out_shape(self, in_shape):
        _, height, _ = in_shape
        return (height,)

    def module(self, in_shape):
        raise NotImplementedError


def test_a_net_without_shapes_is_a_list_in_a_notebook():
    assert "<table" in Net(Flatten(), Rows())._repr_html_()
    assert "Net of 0 layers" in Net()._repr_html_()


def test_a_net_is_summarized_for_images_and_data_sets():
    images = Images.from_arrays(np.zeros((4, 8, 8), np.uint8), [0, 1, 2, 0])
    expected = summarize(NET, (1, 8, 8), 3)
    assert summarize(NET, images) == summarize(NET, Dataset.from_images(images)) == expected
    assert summarize(NET, images, 3) == expected
    labels = Images.from_arrays(np.zeros((4, 8, 8), np.uint8), np.zeros((4, 5), bool))
    assert summarize(NET, labels) == summarize(NET, (1, 8, 8), 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (NET, np.zeros((4, 8, 8))),
            "images must be Images, a Dataset, or a shape such as (3, 32, 32), got ndarray.",
        ),
        (
            (NET, None, 10),
            "images must be Images, a Dataset, or a shape such as (3, 32, 32), got NoneType.",
        ),
        (
            (NET, (1, 8, 8)),
            "a shape needs the number of outputs, as in summarize(net, (1, 8, 8), 10), got None.",
        ),
        (("cnn", (1, 8, 8), 10), 'net must be a Net, such as load_net("cnn-s"), got str.'),
        (
            (NET, Images.from_arrays(np.zeros((2, 8, 8), np.uint8), [0, 1]), 10),
            "outputs is 10, but the images have 2 targets. Leave outputs out.",
        ),
    ],
)
def test_what_cannot_be_summarized_is_named(arguments, message):
    with pytest.raises(NetError, match=f"^{re.escape(message)}$"):
        summarize(*arguments)
