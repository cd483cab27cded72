"""What is drawn is read back from the pixels: pictures are for people, but their colours can be counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from lamina.drawing import COLOURS, draw_confusion, draw_curves, draw_labels, draw_scatter
from lamina.evaluation import (
    ClassReport,
    ClassScores,
    Interval,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
)


def report_of(confusion: list[list[int]], names: list[str]) -> ClassReport:
    return ClassReport(
        split="test",
        images=sum(map(sum, confusion)),
        loss=0.5,
        seconds=1.0,
        accuracy=0.5,
        accuracy_interval=Interval(0.4, 0.6),
        balanced_accuracy=0.5,
        calibration_error=0.1,
        classes=tuple(ClassScores(name, 0.5, 0.5, 0.5, sum(row)) for name, row in zip(names, confusion, strict=True)),
        confusion=tuple(map(tuple, confusion)),
    )


def count_pixels(path, colour: str) -> int:
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    return int((np.abs(pixels - wanted).max(axis=2) <= 2).sum())


def history(epochs: int, split: str = "test") -> list[dict[str, float | None]]:
    return [
        {
            "epoch": epoch,
            "train_accuracy": 0.3 + 0.03 * epoch,
            f"{split}_accuracy": 0.2 + 0.03 * epoch,
            "train_loss": 2.0 / epoch,
            f"{split}_loss": 2.2 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


DARKEST_BLUE = "#08306b"


def test_right_answers_are_dark_where_all_are_right(tmp_path):
    draw_confusion(report_of([[9, 0], [0, 9]], ["cat", "dog"]), tmp_path / "right.png")
    draw_confusion(report_of([[5, 4], [4, 5]], ["cat", "dog"]), tmp_path / "half.png")
    assert count_pixels(tmp_path / "right.png", DARKEST_BLUE) > 20_000
    assert count_pixels(tmp_path / "half.png", DARKEST_BLUE) == 0


@pytest.mark.parametrize(
    "names",
    [
        ["no", "yes"],
        ["costs $5", "costs $6 to $7", "a^b_c$"],
        [f"a name that is far too long to be read, number {place}" for place in range(6)],
        [f"class {place}" for place in range(30)],
    ],
    ids=["two", "dollars", "long", "thirty"],
)
def test_any_names_and_numbers_of_classes_can_be_drawn(names, tmp_path):
    confusion = np.eye(len(names), dtype=int) * 3
    confusion[-1] = 0  # a class without images
    draw_confusion(report_of(confusion.tolist(), names), tmp_path / "confusion.png")
    assert count_pixels(tmp_path / "confusion.png", DARKEST_BLUE) > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]


def test_each_net_has_a_colour_of_its_own(tmp_path):
    draw_curves({"mlp": [history(5)], "cnn": [history(10)]}, tmp_path / "curves.png")
    mlp, cnn, third = (count_pixels(tmp_path / "curves.png", colour) for colour in COLOURS[:3])
    assert cnn > mlp > 200
    assert third == 0


def test_held_out_images_may_be_those_of_val(tmp_path):
    draw_curves({"mlp": [history(5, split="val")]}, tmp_path / "val.png")
    draw_curves({"mlp": [[{"epoch": 1, "train_loss": 0.5}]]}, tmp_path / "bare.png")
    assert count_pixels(tmp_path / "val.png", COLOURS[0]) > count_pixels(tmp_path / "bare.png", COLOURS[0])


def test_a_claim_adds_a_line_in_its_nets_colour(tmp_path):
    curves = {"mlp": [history(5)], "cnn": [history(5)]}
    draw_curves(curves, tmp_path / "plain.png")
    draw_curves(curves, tmp_path / "claimed.png", claimed={"cnn": 0.3})
    assert count_pixels(tmp_path / "claimed.png", COLOURS[1]) > count_pixels(tmp_path / "plain.png", COLOURS[1])


def test_seeds_of_different_length_and_epochs_without_figures_can_be_drawn(tmp_path):
    seeds = [history(5), history(3), [row | {"train_accuracy": None} for row in history(4)]]
    draw_curves({"mlp": seeds}, tmp_path / "curves.png")
    assert count_pixels(tmp_path / "curves.png", COLOURS[0]) > 200


def test_one_epoch_is_a_point(tmp_path):
    draw_curves({"mlp": [history(1)]}, tmp_path / "curves.png")
    with_points = count_pixels(tmp_path / "curves.png", COLOURS[0])
    draw_curves({"mlp": [[]]}, tmp_path / "empty.png")
    assert with_points > count_pixels(tmp_path / "empty.png", COLOURS[0])


def test_a_picture_is_replaced_whole(tmp_path):
    path = tmp_path / "confusion.png"
    path.write_text("an older picture")
    report = report_of([[9, 0], [0, 9]], ["cat", "dog"])
    draw_confusion(report, path)
    first = path.read_bytes()
    draw_confusion(dataclasses.replace(report, accuracy=0.25), path)
    assert path.read_bytes() != first
    assert list(tmp_path.iterdir()) == [path]


def test_of_very_many_classes_those_in_the_most_mistakes_are_drawn(tmp_path):
    classes = 130
    confusion = np.eye(classes, dtype=int) * 5
    confusion[100, 129] = (
        5  # two of the classes at the end are mistaken, and half of one's images are dark blue no more
    )
    draw_confusion(report_of(confusion.tolist(), [f"class {place}" for place in range(classes)]), tmp_path / "many.png")
    draw_confusion(
        report_of(np.eye(classes, dtype=int).tolist(), [str(place) for place in range(classes)]), tmp_path / "right.png"
    )
    with Image.open(tmp_path / "many.png") as picture:
        assert max(picture.size) < 2400
    right, with_mistakes = (count_pixels(tmp_path / f"{name}.png", DARKEST_BLUE) for name in ("right", "many"))
    assert with_mistakes == pytest.approx(right * 99 / 100, rel=0.05)


def label_report(precisions: list[float | None], support: int) -> LabelReport:
    return LabelReport(
        split="test", images=100, loss=0.5, seconds=1.0, mean_average_precision=0.5, micro_f1=0.5, macro_f1=0.5,
        labels=tuple(
            LabelScores(f"label $ {place}", precision, 0.5, 0.5, 0.5, support)
            for place, precision in enumerate(precisions)
        ),
    )  # fmt: skip


def test_a_label_of_twice_the_average_precision_has_a_bar_of_twice_the_length(tmp_path):
    draw_labels(label_report([0.4, None], support=0), tmp_path / "low.png")
    draw_labels(label_report([0.8, None], support=0), tmp_path / "high.png")
    draw_labels(label_report([0.01] * 100, support=50), tmp_path / "many.png")
    key = 60 * 13 * 2  # pixels of the legend, about
    low, high = (count_pixels(tmp_path / f"{name}.png", COLOURS[0]) for name in ("low", "high"))
    assert high - key == pytest.approx(2 * (low - key), rel=0.1)
    assert count_pixels(tmp_path / "many.png", COLOURS[1]) > 40 * 100
    with Image.open(tmp_path / "many.png") as picture:
        assert max(picture.size) < 2500


@pytest.mark.parametrize("count", [1, 2, 4, 15])
def test_each_number_has_a_square_with_the_answers_over_the_truth(tmp_path, count):
    report = NumberReport(
        split="test", images=50, loss=0.5, seconds=1.0, mean_absolute_error=1.0,
        numbers=tuple(NumberScores(f"a_$ {place}", 1.0, 2.0, 1.5, None) for place in range(count)),
    )  # fmt: skip
    truth = np.random.default_rng(0).normal(size=(50, count)).astype(np.float32)
    truth[:, 0] = 3.0  # the same everywhere, and told so
    draw_scatter(report, truth.copy(), truth, tmp_path / "scatter.png")
    with Image.open(tmp_path / "scatter.png") as picture:
        columns, lines = min(count, 3), -(-min(count, 12) // 3)
        assert picture.width / picture.height == pytest.approx(columns / lines, rel=0.15)
