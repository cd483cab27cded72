from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from lamina.data import Preparation
from lamina.errors import DataError, LaminaError, NetError
from lamina.nets import Conv2d, Dropout, Layer, Linear, MaxPool2d, Net, Shape
from lamina.values import Range, check_fields, from_json_values, to_json_values


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Everything:
    """A field of every kind."""

    count: Annotated[int, Range(1, 10)] = 1
    share: Annotated[float, Range(0, below=1)] = 0.0
    size: int | Annotated[tuple[int, int], "two, (height, width)"] = 1
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    name: str | None = None
    many: tuple[float, ...] = ()
    point: Point | None = None
    counts: dict[str, int] | None = None
    anything: Any = None

    def __post_init__(self) -> None:
        check_fields(self, LaminaError)


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("count", np.int64(3), 3),
        ("count", np.uint8(3), 3),
        ("count", torch.tensor(3), 3),
        ("share", np.float64(0.5), 0.5),
        ("share", np.float32(0.5), 0.5),
        ("share", 0, 0.0),
        ("size", (np.int32(2), 3), (2, 3)),
        ("size", [2, 3], (2, 3)),
        ("mode", np.str_("slow"), "slow"),
        ("flag", np.True_, True),
        ("name", None, None),
        ("many", [1, np.float32(0.5)], (1.0, 0.5)),
        ("point", {"x": 1}, Point(1.0)),
        ("point", Point(2), Point(2)),
        ("counts", {"a": np.int64(1)}, {"a": 1}),
    ],
)
def test_a_value_becomes_the_field_s_type(field, given, expected):
    value = Everything(**{field: given})
    found = getattr(value, field)
    assert found == expected
    assert type(found) is type(expected)
    assert repr(found) == repr(expected)
    json.dumps(to_json_values(value))


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("count", 0, "count must be a whole number from 1 to 10, got 0."),
        ("count", True, "count must be a whole number from 1 to 10, got True."),
        ("count", np.False_, "count must be a whole number from 1 to 10, got False."),
        ("count", 3.0, "count must be a whole number from 1 to 10, got 3.0."),
        ("count", np.array([3]), "count must be a whole number from 1 to 10, got array([3])."),
        ("share", 1, "share must be a number from 0 to below 1, got 1."),
        ("share", float("nan"), "share must be a number from 0 to below 1, got nan."),
        ("share", float("-inf"), "share must be a number from 0 to below 1, got -inf."),
        ("share", True, "share must be a number from 0 to below 1, got True."),
        ("size", (1, 2, 3), "size must be a whole number or two, (height, width), got (1, 2, 3)."),
        ("size", (1, "2"), "size[1] must be a whole number, got '2'."),
        ("mode", "fats", "mode must be 'fast' or 'slow', got 'fats'. Did you mean fast?"),
        ("mode", np.array([3, 4]), "mode must be 'fast' or 'slow', got array([3, 4])."),
        ("flag", 1, "flag must be True or False, got 1."),
        ("name", 3, "name must be text, got 3."),
        ("many", "12", "many must be a list, each item a number, got '12'."),
        ("many", [1, None], "many[1] must be a number, got None."),
        ("point", 3, "point must be an object with the fields x, y, got 3."),
        ("point", {"y": 1}, "point lacks the field 'x'; its fields are x, y."),
        ("point", {"x": 1, "z": 1}, "point has no field 'z'; its fields are x, y."),
        ("counts", {"a": "b"}, "counts.a must be a whole number, got 'b'."),
    ],
)
def test_an_invalid_value_is_rejected_with_what_was_expected(field, given, message):
    with pytest.raises(LaminaError) as rejected:
        Everything(**{field: given})
    assert str(rejected.value) == message


def test_stored_values_are_checked_alike():
    assert from_json_values(Everything, {"count": 2, "point": {"x": 1}}, "it") == Everything(
        2, point=Point(1)
    )
    for values, message in [
        ({"count": 0}, "it.count must be a whole number from 1 to 10, got 0"),
        ({"point": {"x": "a"}}, "it.point.x must be a number, got 'a'"),
        (
            {"color": 0},
            (
                "it has no field 'color'; its fields are count, share, size, mode, flag, name,"
                " many, point"
            ),
        ),
        (
            [],
            (
                "it must be an object with the fields count, share, size, mode, flag, name, many,"
                " point"
            ),
        ),
    ]:
        with pytest.raises(ValueError) as rejected:
            from_json_values(Everything, values, "it")
        assert str(rejected.value).startswith(message)


@dataclass(frozen=True, repr=False)
class Stacked(Layer):
    """A layer of a user, with fields that lamina does not know."""

    widths: list[int]
    scale: Callable[[float], float] = math.sqrt
    kind: type[torch.nn.Module] = torch.nn.ReLU
    skipped: set[int] = field(default_factory=set)
    names: list[str] | None = None

    def module(self, in_shape: Shape) -> torch.nn.Module:
        return self.kind()


def test_own_layers_have_fields_of_any_type():
    layer = Stacked([8, np.int64(16)], kind=torch.nn.GELU, skipped={2}, names=["a"])
    assert layer.widths == [8, 16]
    assert type(layer.widths[1]) is int
    assert (layer.scale, layer.kind, layer.skipped) == (math.sqrt, torch.nn.GELU, {2})
    assert layer.names == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": 8}, "widths must be a list, each item a whole number, got 8."),
        ({"widths": [8, "a"]}, "widths[1] must be a whole number, got 'a'."),
        ({"widths": [], "scale": 2}, "scale must be a Callable, got 2."),
        ({"widths": [], "kind": torch.nn.ReLU()}, "kind must be a type, got ReLU()."),
        ({"widths": [], "skipped": [2]}, "skipped must be a set, got [2]."),
    ],
)
def test_fields_of_own_layers_have_the_class_of_their_type(arguments, message):
    with pytest.raises(NetError, match=f"^Stacked: {re.escape(message)}$"):
        Stacked(**arguments)


def test_layers_take_the_numbers_of_numpy():
    assert Linear(np.int64(32), bias=np.True_) == Linear(32)
    assert Conv2d(np.int64(8), (np.int32(3), 1), padding=np.uint8(1)) == Conv2d(
        8, (3, 1), padding=1
    )
    assert repr(MaxPool2d(np.int64(2))) == "MaxPool2d(2)"
    assert Net(Dropout(np.float64(0.2))).text() == "Dropout(p=0.2)"
    for number in (np.int64(0), np.float64(32), np.True_):
        with pytest.raises(
            NetError,
            match=r"^Linear: out_features must be a whole number from 1 to 1,000,000, got ",
        ):
            Linear(number)


class TestPreparation:
    def test_takes_the_numbers_of_numpy(self):
        preparation = Preparation(
            size_px=np.int64(64), val_fraction=np.float32(0.25), label_columns=["a", "b"]
        )
        assert preparation == Preparation(size_px=64, val_fraction=0.25, label_columns=("a", "b"))
        assert json.loads(json.dumps(preparation.to_json())) == {
            "size_px": 64,
            "val_fraction": 0.25,
            "label_columns": ["a", "b"],
        }
        assert from_json_values(Preparation, preparation.to_json(), "preparation") == preparation

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"size_px": 64.5}, "size_px must be a whole number of at least 1, got 64.5."),
            ({"size_px": "64"}, "size_px must be a whole number of at least 1, got '64'."),
            ({"size_px": True}, "size_px must be a whole number of at least 1, got True."),
            ({"size_px": 0}, "size_px must be a whole number of at least 1, got 0."),
            (
                {"resize": "corp"},
                "resize must be 'crop', 'pad' or 'stretch', got 'corp'. Did you mean crop?",
            ),
            (
                {"task": "binray"},
                (
                    "task must be 'single-label', 'multi-label', 'binary' or 'regression', got"
                    " 'binray'."
                ),
            ),
            (
                {"label_columns": "label"},
                "label_columns must be a list of column names, got 'label'.",
            ),
            ({"label_columns": (3,)}, "label_columns[0] must be text, got 3."),
            (
                {"label_separator": ""},
                (
                    "label_separator is empty, but must have at least one character, such as"
                    " label_separator='|'."
                ),
            ),
            (
                {"val_fraction": float("nan")},
                "val_fraction must be a number from 0 to below 1, got nan.",
            ),
            ({"test_fraction": 1}, "test_fraction must be a number from 0 to below 1, got 1."),
            ({"split_seed": 0.5}, "split_seed must be a whole number, got 0.5."),
            (
                {"val_fraction": 0.5, "test_fraction": 0.5},
                (
                    "val_fraction 0.5 and test_fraction 0.5 leave no training images. Their sum"
                    " must be below 1."
                ),
            ),
        ],
        ids=repr,
    )
    def test_rejects_invalid_values(self, values, message):
        with pytest.raises(DataError) as rejected:
            Preparation(**values)
        assert str(rejected.value).startswith(message)


def test_a_range_contains_the_finite_numbers_inside() -> None:
    assert [number in Range(0, below=1) for number in (0, 0.5, 1.0, -1e-9, float("nan"))] == [
        True,
        True,
    ] + [False] * 3
    assert float("nan") not in Range()


def test_an_error_has_its_remedy_apart_and_names_the_field() -> None:
    error = DataError("lr is high;", remedy="use --lr 0.1.", field="lr")
    for same in (error, pickle.loads(pickle.dumps(error))):
        assert str(same) == "lr is high; use --lr 0.1."
        assert (same.problem, same.remedy, same.field) == ("lr is high.", "use --lr 0.1.", "lr")
    with pytest.raises(LaminaError) as refused:
        Everything(count=0)
    assert refused.value.field == "count"
    assert refused.value.problem.startswith("count must be") and not refused.value.remedy
