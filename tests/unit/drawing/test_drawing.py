"""Figures are checked by their pixels: they are for people, but their colors can be counted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from PIL import Image

from lamina.data import Images
from lamina.drawing.curves import draw_curves
from lamina.drawing.metric_figures import draw_reliability, draw_scatter, draw_thresholds
from lamina.drawing.style import (
    COLORS,
    DOTS_PER_INCH,
    encode_png,
    font_file,
    label,
    new_figure,
    save_figure,
)
from lamina.drawing.unit_sheets import draw_probes
from lamina.evaluation.intervals import Interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Baseline, Report, Row
from lamina.insight.probes import LayerProbe, Probes
from lamina.targets import Score
from lamina.training.task import MultiLabel, SingleLabel
from support.histories import history

ACCURACY = Score("accuracy", 0.5)
BASELINE = Baseline("majority", "always cat", 0.3, 0.2, Interval(0.1, 0.3))


def report_of(confusion: list[list[int]], names: list[str]) -> Report:
    return Report(
        kind="single-label",
        split="test",
        images=sum(map(sum, confusion)),
        score=ACCURACY,
        baseline=BASELINE,
        loss=0.5,
        metrics={"accuracy": 0.5},
        rows=tuple(Row(name, sum(row), {}) for name, row in zip(names, confusion, strict=True)),
        seconds=1.0,
    )


def count_pixels(path, color: str) -> int:
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    return int((np.abs(pixels - wanted).max(axis=2) <= 2).sum())


@pytest.mark.parametrize(
    "names",
    [
        ["no", "yes"],
        ["costs $5", "a^b_c$", "a name that is far too long to be read"],
    ],
    ids=["two", "odd"],
)
def test_any_names_and_numbers_of_classes_can_be_drawn(names, tmp_path):
    save_figure(draw_labels(names), tmp_path / "labels.png")
    assert count_pixels(tmp_path / "labels.png", COLORS[0]) > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["labels.png"]


def test_val_is_a_line_and_the_final_report_a_point():
    rows = [{key: value for key, value in row.items() if "val" not in key} for row in history(5)]
    report = report_of([[9, 0], [0, 9]], ["cat", "dog"])
    figure = draw_curves(rows, ACCURACY, report)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["training images", "test images, after the last epoch"]
    for axes, value in zip(figure.axes, (report.score.value, report.loss), strict=True):
        assert [
            (line.get_xdata()[0], line.get_ydata()[0])
            for line in axes.lines
            if line.get_marker() == "D"
        ] == [(5, value)]
    named = [text.get_text() for text in draw_curves(history(5), ACCURACY).legends[0].get_texts()]
    assert named == ["training images", "val images"]


def test_epochs_without_figures_can_be_drawn(tmp_path):
    rows = [*history(3), history(4)[3] | {"train_accuracy": None}]
    save_figure(draw_curves(rows, ACCURACY), tmp_path / "curves.png")
    assert count_pixels(tmp_path / "curves.png", COLORS[0]) > 200


def test_the_values_of_one_epoch_are_points(tmp_path):
    report = report_of([[9, 0], [0, 9]], ["cat", "dog"])
    figure = draw_curves(history(1), ACCURACY, report)
    row = history(1)[0]
    at_end = {"accuracy": 0.5, "loss": 0.5}
    for axes, column in zip(figure.axes, ("accuracy", "loss"), strict=True):
        values = [row[f"train_{column}"], row[f"val_{column}"], at_end[column]]
        assert [list(line.get_ydata()) for line in axes.lines] == [[value] for value in values]
        assert [line.get_marker() for line in axes.lines] == ["o", "o", "D"]
    save_figure(figure, tmp_path / "curves.png")
    save_figure(draw_curves([], ACCURACY), tmp_path / "empty.png")


def test_axes_of_fractions_end_at_100_percent():
    rows = [row | {"val_accuracy": 1.0} for row in history(3)]
    assert draw_curves(rows, ACCURACY).axes[0].get_ylim()[1] == 1
    outputs = Outputs("test", np.eye(3, dtype=np.float32), np.arange(3), ("0", "1", "2"))
    (reliability,) = draw_reliability(SingleLabel(("a", "b", "c"), (0.3, 0.3, 0.4)), outputs).axes
    assert [reliability.get_xlim(), reliability.get_ylim()] == [(0, 1)] * 2
    probes = [LayerProbe("", name, 3, None, ACCURACY, ACCURACY) for name in ("image", "1 Linear")]
    figure = draw_probes(Probes(tuple(probes), 100, 50, "val"))
    assert figure.axes[0].get_ylim() == (0, 1)


def test_an_image_is_replaced_whole(tmp_path):
    path = tmp_path / "labels.png"
    path.write_text("an older image")
    save_figure(draw_labels(["one"]), path)
    first = path.read_bytes()
    save_figure(draw_labels(["other"]), path)
    assert path.read_bytes() != first
    assert list(tmp_path.iterdir()) == [path]


def draw_labels(names: Sequence[str]) -> Figure:
    """Curves of precision and recall of labels with these names."""
    generator = np.random.default_rng(0)
    truth = generator.random((40, len(names))) < 0.5
    logits = (generator.normal(size=truth.shape) + truth).astype(np.float32)
    outputs = Outputs("test", logits, truth, tuple(map(str, range(40))))
    figure = draw_thresholds(MultiLabel(tuple(names), (0.5,) * len(names)), outputs)
    assert figure is not None
    return figure


def test_of_many_labels_twelve_are_drawn():
    figure = draw_labels([f"label $ {place}" for place in range(30)])
    assert len(figure.axes) == 12
    assert max(figure.get_size_inches()) * DOTS_PER_INCH < 2500


@pytest.mark.parametrize("count", [1, 15])
def test_each_number_has_a_panel_with_predictions_over_targets(count):
    metrics = {"mean_absolute_error": 1.0, "r2": None}
    report = Report(
        kind="regression",
        split="test",
        images=50,
        score=Score("mean_absolute_error", 1.0),
        baseline=BASELINE,
        loss=0.5,
        metrics=metrics,
        rows=tuple(Row(f"a_$ {place}", 50, metrics) for place in range(count)),
        seconds=1.0,
    )
    truth = np.random.default_rng(0).normal(size=(50, count)).astype(np.float32)
    truth[:, 0] = 3.0  # the same everywhere, and predicted so
    images = Images(
        np.zeros((50, 2, 2, 3), np.uint8), truth, tuple(map(str, range(count))), ("",) * 50, "test"
    )
    figure = draw_scatter(report, Outputs("test", truth, truth, images.names))
    columns, lines = min(count, 3), -(-min(count, 12) // 3)
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(columns / lines, rel=0.15)
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("low", "high", "score", "some"),
    [
        (0.75, 0.94, ACCURACY, ["77.5 %", "80 %", "82.5 %"]),
        (0.0, 1.0, ACCURACY, ["0 %", "20 %", "100 %"]),
        (0.991, 0.9925, ACCURACY, ["99.1 %", "99.12 %"]),
        (2.5, 10.0, Score("mean_absolute_error", 1.0), ["3", "10"]),
    ],
)
def test_the_score_axis_is_labeled_with_the_values_at_its_ticks(low, high, score, some):
    rows = [{"epoch": epoch, f"val_{score.name}": value} for epoch, value in ((1, low), (2, high))]
    axes = draw_curves(rows, score).axes[0]
    axes.figure.draw_without_rendering()
    labels = {
        tick.get_text(): place
        for tick, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    }
    for text, place in labels.items():
        number = float(text.removesuffix(" %").replace("\N{MINUS SIGN}", "-"))
        assert number == pytest.approx(place if score.lower_is_better else 100 * place, abs=1e-9)
        assert text.endswith(" %") != score.lower_is_better
    assert set(some) <= set(labels)


HOSTILE = [
    "\x1b[31mred",
    "new\nline",
    "tab\there",
    "\u202egnp.exe",
    "a$b$c",
    r"a\$b",
    "猫",
    "_hidden",
    "\udcff",
]


def test_control_characters_of_names_are_drawn_escaped():
    figure = draw_labels(HOSTILE)
    shown = [
        axes.get_title(loc="left").removesuffix(" on test").replace(r"\$", "$")
        for axes in figure.axes
    ]
    assert shown == [
        r"\x1b[31mred",
        r"new\nline",
        r"tab\there",
        r"\u202egnp.exe",
        "a$b$c",
        r"a\$b",
        "猫",
        "_hidden",
        r"\udcff",
    ]
    figure.draw_without_rendering()  # reads formulas, as a notebook does


def test_figures_are_not_known_to_pyplot_and_change_no_style():
    import matplotlib.pyplot

    before = dict(matplotlib.rcParams)
    draw_curves(history(3), ACCURACY)
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_letters_come_from_any_installed_font_that_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["sans-serif"])
    stix = get_font(
        str(Path(matplotlib.get_data_path(), "fonts/ttf/STIXGeneral.ttf"))
    ).get_charmap()
    dejavu = get_font(
        str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
    ).get_charmap()
    rare = sorted(stix.keys() - dejavu.keys() - set(range(0xE000, 0xF900)))
    first, second = map(chr, rare[:2])
    drawn = set()
    for letter in (first, second):
        figure = new_figure(3, 2)
        axes = figure.add_subplot()
        axes.set_title(label(f"a{letter}"))
        axes.set_xticks([0, 1], ["plain", label(letter)])
        drawn.add(encode_png(figure))
    assert len(drawn) == 2  # boxes for letters without a font would look the same
    with warnings.catch_warnings(action="error"):
        axes.set_title("\U0001fadf")  # in no font
        encode_png(figure)
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]
    assert font_file("plain").endswith("DejaVuSans.ttf")
    assert ord(first) in get_font(font_file(f"a{first}")).get_charmap()
