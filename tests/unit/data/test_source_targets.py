"""What the values that a source gives its images are taken for."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Preparation, Problem
from lamina.data.labels import leave_out_unlabeled, read_targets
from lamina.data.sources.frames import add_problems, clean_column
from lamina.data.sources.interface import LABEL, Files
from lamina.errors import DataError
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL
from support.listed import Listed


class Reading(NamedTuple):
    targets: np.ndarray
    target_names: tuple[str, ...]
    reason: str


def read(labels: dict[str, list], target_names=None, **options) -> Reading:
    files = list_labels(labels, target_names)
    preparation = Preparation(**options)
    return Reading(*read_targets(leave_out_unlabeled(files, preparation), preparation))


def list_labels(labels: dict[str, list], target_names=None) -> Files:
    count = len(next(iter(labels.values())))
    columns = {
        LABEL + name: clean_column(pl.Series(values, strict=False))
        for name, values in labels.items()
    }
    names = [f"{number}.png" for number in range(count)]
    frame = pl.DataFrame({"name": names, "file": [b""] * count, **columns})
    return Files(add_problems(frame, ()), "the test", target_names)


@pytest.mark.parametrize(
    ("labels", "options", "targets", "names", "what"),
    [
        ({"kind": ["dog", "cat", "dog"]}, {}, [1, 0, 1], ("cat", "dog"), "single-label, 2 classes"),
        ({"digit": [10, 9, 9, 10]}, {}, [1, 0, 0, 1], ("9", "10"), "single-label, 2 classes"),
        ({"digit": [1.0, 0.0, 1.0]}, {}, [1, 0, 1], ("0", "1"), "single-label, 2 classes"),
        ({"ill": [True, False]}, {}, [True, False], ("ill",), "binary, ill: yes or no"),
        (
            {"ill": ["Yes", "no", "yes"]},
            {},
            [True, False, True],
            ("ill",),
            "binary, ill: yes or no",
        ),
        ({"ill": [1, 0]}, {"task": "binary"}, [True, False], ("ill",), "binary, ill: yes or no"),
        (
            {"tags": ["a|b", "b", "a"]},
            {},
            [[1, 1], [0, 1], [1, 0]],
            ("a", "b"),
            "multi-label, 2 labels",
        ),
        (
            {"tags": ["a, b", "", "a"]},
            {"label_separator": ","},
            [[1, 1], [0, 0], [1, 0]],
            ("a", "b"),
            "multi-label, 2 labels",
        ),
        ({"tags": [["b"], None]}, {}, [[1], [0]], ("b",), "multi-label, 1 label"),
        (
            {"red": [1, 0], "big": [0, 0]},
            {},
            [[1, 0], [0, 0]],
            ("red", "big"),
            "multi-label, 2 labels",
        ),
        ({"age": [1.5, 2.0]}, {}, [[1.5], [2.0]], ("age",), "regression, 1 number"),
        (
            {"age": [3, 9, 11, 17]},
            {"task": "regression"},
            [[3], [9], [11], [17]],
            ("age",),
            "regression, 1 number",
        ),
        ({"x": [1.5, 2], "y": [0, 1]}, {}, [[1.5, 0], [2, 1]], ("x", "y"), "regression, 2 numbers"),
        ({"kind": [3, 3]}, {"task": "regression"}, [[3], [3]], ("kind",), "regression, 1 number"),
        (
            {"flag": [True, False]},
            {"task": "single-label"},
            [1, 0],
            ("False", "True"),
            "single-label, 2 classes",
        ),
    ],
)
def test_the_kind_is_found_or_as_requested(labels, options, targets, names, what) -> None:
    reading = read(labels, **options)
    assert reading.targets.tolist() == targets
    assert reading.target_names == names
    assert reading.reason == f"{what}, from the test"


def test_whole_numbers_that_hardly_come_again_are_measurements() -> None:
    assert read({"width": list(range(100))}).targets.dtype == np.float32
    assert read({"kind": [number // 10 for number in range(100)]}).targets.dtype == np.int64


def test_texts_whose_pieces_never_come_again_are_classes() -> None:
    assert read({"breed": ["poodle, toy", "poodle", "poodle"]}).target_names == (
        "poodle",
        "poodle, toy",
    )
    assert read({"title": ["a;b", "c;d", "e;f"]}).target_names == ("a;b", "c;d", "e;f")
    assert read({"tags": ["a|b", "c|d", "e|f"]}).target_names == tuple("abcdef")


def test_the_order_of_names_is_kept() -> None:
    assert read({"kind": ["b", "a"]}, target_names=("b", "a", "never")).targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            {"kind": [None, ""]},
            {},
            (
                "All 2 images have no value in column 'kind'. Choose the column to learn"
                " with --label-column (in Python, label_columns)."
            ),
        ),
        (
            {"age": ["old", "young"]},
            {"task": "regression"},
            (
                "Expected numbers in column 'age', but all 2 values are different, such as 'old'."
                " Leave out --task (in Python, task). Choose the column to learn with"
                " --label-column (in Python, label_columns)."
            ),
        ),
        (
            {"age": ["0,5", "1,5"]},
            {"task": "regression"},
            (
                "Column 'age' looks like numbers, but has values such as '0,5'. Write numbers with"
                " a decimal point, without thousands separators or units, as in 1234.5. If commas"
                " separate several labels, use --task multi-label; if each text is a class, use"
                " --task single-label (in Python, task)."
            ),
        ),
        (
            {"age": [1.0, float("inf")]},
            {"task": "regression"},
            (
                "Expected numbers in column 'age', but 1 value is different, such as inf. Correct"
                " or remove those rows."
            ),
        ),
        (
            {"ill": ["yes", "maybe"]},
            {"task": "binary"},
            (
                "Expected yes, no, true, false, 1 or 0 in column 'ill', but 1 value is different,"
                " such as 'maybe'. Correct or remove those rows."
            ),
        ),
        (
            {"kind": ["a", "b"], "age": [1, 2]},
            {},
            (
                "Several label columns must all contain 0 and 1, or all contain numbers; of 'kind',"
                " 'age', 'kind' contain something else. Choose the column to learn with"
                " --label-column (in Python, label_columns)."
            ),
        ),
        (
            {"kind": ["a", "b"], "age": [1, 2]},
            {"task": "single-label"},
            (
                "The class of an image must be in one column, but there are 2: 'kind', 'age'."
                " Choose the column to learn with --label-column (in Python, label_columns)."
            ),
        ),
        (
            {"tags": [["a"], ["a", "b"]]},
            {"task": "single-label"},
            (
                "The label column holds lists, so the task is multi-label. Leave out --task (in"
                " Python, task)."
            ),
        ),
        (
            {"tags": ["a|b", None, "a"]},
            {},
            (
                "1 image has no value in column 'tags'; the first is 1.png. If an empty cell means"
                " no label, add --task multi-label (in Python, Preparation(task='multi-label'))."
                " Otherwise, complete or remove those rows."
            ),
        ),
        (
            {"tags": [[], []]},
            {},
            (
                "No image has a label. Choose the column to learn with --label-column (in Python,"
                " label_columns)."
            ),
        ),
    ],
)
def test_values_that_cannot_be_used_say_what_to_do(labels, options, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read(labels, **options)
    assert str(raised.value) == message


def test_an_image_without_a_value_is_left_out_and_named() -> None:
    files = list_labels({"age": [1.5, None, 2.5], "size": [1, 2, None]})
    found = Listed(leave_out_unlabeled(files, Preparation()))
    assert found.labels == {"age": [1.5], "size": [1]}
    assert [image.name for image in found.images] == ["0.png"]
    assert found.problems == [
        Problem("1.png", "no value in column 'age'"),
        Problem("2.png", "no value in column 'size'"),
    ]


@pytest.mark.parametrize(
    ("task", "expected"), [("regression", "numbers"), ("binary", "yes, no, true, false, 1 or 0")]
)
def test_class_folders_that_do_not_fit_the_task_are_no_column(task, expected: str) -> None:
    listed = list_labels({"class": ["airplane", "ship"]})
    files = replace(listed, label_reason="the class folders", kind="single-label")
    with pytest.raises(DataError) as raised:
        read_targets(files, Preparation(task=task))
    assert (
        str(raised.value)
        == f"The task needs {expected}, but the targets come from the class folders, such as"
        " 'airplane'. Leave out --task (in Python, task)."
    )


@given(st.lists(st.sets(st.sampled_from("abcde")), min_size=1).filter(any))
def test_many_labels_say_the_same_as_lists_columns_and_texts(sets: list[set[str]]) -> None:
    labels = sorted(set().union(*sets))
    as_lists = read({"tags": [sorted(found) for found in sets]})
    as_text = read({"tags": ["+".join(sorted(found)) for found in sets]}, label_separator="+")
    as_columns = (
        read({label: [label in found for found in sets] for label in labels}, task="multi-label")
        if len(labels) > 1
        else as_lists
    )
    expected = [[label in found for label in labels] for found in sets]
    for reading in (as_lists, as_text, as_columns):
        assert reading.target_names == tuple(labels)
        assert reading.targets.tolist() == expected


def test_strata_are_classes_rarest_labels_yes_or_no_and_deciles() -> None:
    assert SINGLE_LABEL.strata(np.array([2, 0])) == [2, 0]
    assert BINARY.strata(np.array([True, False])) == [True, False]
    assert MULTI_LABEL.strata(np.array([[1, 1], [1, 0], [0, 0]], np.bool_)) == [1, 0, -1]
    numbers = np.arange(100, dtype=np.float32)[::-1, None]
    assert REGRESSION.strata(numbers) == [9 - place // 10 for place in range(100)]
    assert REGRESSION.strata(numbers[:12]) == [1 - place // 6 for place in range(12)]
