"""Thresholds that are chosen on ``val`` for an aim, compared with every possible threshold."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from lamina import Recipe, cross_validate, load_run, start_run
from lamina.data import Dataset, Images
from lamina.drawing.metric_figures import draw_thresholds
from lamina.errors import LaminaWarning, RecipeError
from lamina.evaluation.calibration import choose_thresholds, fit_temperatures
from lamina.evaluation.intervals import wilson_interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictions import make_prediction
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL
from lamina.training.recipe import Aim, parse_aim
from lamina.training.task import Binary, MultiLabel, Task

QUESTION = Binary(("scratch?",), (0.3,))


def draw(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.concatenate([[True, False], generator.random(images) < 0.3])
    logits = np.round(generator.normal(size=len(truth)) + 2 * truth - 1, 1)  # some are tied
    return logits.astype(np.float32)[:, None], truth


AIMS = [Aim("f1"), Aim("recall", 0.9), Aim("precision", 0.8), Aim("miss", 10.0), Aim("miss", 0.2)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 200), st.sampled_from(AIMS))
def test_no_other_threshold_serves_the_aim_better(seed, images, aim):
    logits, truth = draw(seed, images)
    (chosen,) = choose_thresholds(QUESTION, logits, truth, aim)
    decided = dataclasses.replace(QUESTION, thresholds=(chosen.value,))
    found = decide(decided, logits)
    assert (chosen.positive, chosen.predicted) == (truth.sum(), found.sum())
    assert chosen.found == (found & truth).sum()

    def score(predicted: np.ndarray, is_shown: bool) -> float:
        hits, positive, chosen = (int(x.sum()) for x in (predicted & truth, truth, predicted))
        recall, precision = hits / positive, hits / max(1, chosen)
        if is_shown:
            low = wilson_interval(hits, positive if aim.name == "recall" else max(1, chosen)).low
            recall, precision = (value if low >= aim.value else 0 for value in (recall, precision))
        match aim.name:
            case "f1":
                return 2 * hits / (positive + chosen)
            case "recall":
                return precision if recall >= aim.value else -1
            case "precision":
                return recall if precision >= aim.value else -1
        return -(aim.value * (truth & ~predicted).sum() + (predicted & ~truth).sum())

    limits = (-9, *np.unique(logits))
    is_shown = aim.name in ("recall", "precision")
    others = [score(logits[:, 0] > limit, is_shown) for limit in limits]
    if max(others) == -1 and is_shown:  # too few images: what they have themselves decides
        is_shown = False
        others = [score(logits[:, 0] > limit, is_shown) for limit in limits]
    if max(others) > -1 or aim.name == "miss":
        assert score(found, is_shown) == pytest.approx(max(others))
    else:
        assert chosen.value == 0.5


def decide(task: Task, logits: np.ndarray) -> np.ndarray:
    rows = task.probabilities(_tensor(logits)).numpy()
    return np.array([make_prediction(task, "x", row).predicted == "yes" for row in rows.tolist()])


def _tensor(values: np.ndarray):
    import torch

    return torch.from_numpy(values)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=30),
    st.floats(0.3, 4),
    st.booleans(),
)
def test_an_image_at_its_threshold_is_decided_alike_everywhere(values, temperature, is_single):
    """Its threshold is its own probability, or the next number below."""
    logits = (
        np.array(values, np.float32)[None]
        if not is_single
        else np.array(values[:1], np.float32)[None]
    )
    names = tuple(map(str, range(logits.shape[1])))
    task = (Binary if is_single else MultiLabel)(
        names, (0.5,) * len(names), (temperature,) * len(names)
    )
    own = task.probabilities(_tensor(logits)).numpy()[0]
    below = np.nextafter(own, np.float32(0))
    for limits, is_above in ((own, False), (below, True), (own.astype(float) * (1 + 1e-9), False)):
        decided = dataclasses.replace(task, thresholds=tuple(limits.astype(float).tolist()))
        for found in (
            decided.decide(_tensor(logits)),
            decided.decide(_tensor(logits.astype(np.float64))),
        ):
            assert (found.numpy() == is_above).all()
        predicted = make_prediction(decided, "x", own.tolist()).predicted
        assert predicted == ((("no", "yes")[is_above]) if is_single else names if is_above else ())
        assert (
            (own > np.array(decided.cutoffs)) == is_above
        ).all()  # as the examples of docs/howto/export.md


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(AIMS), st.sampled_from([1e-7, 3e-7, 1e-6]))
def test_no_threshold_separates_what_rounding_makes_equal(seed, aim, apart):
    """Other programs compute probabilities that differ in the last digits."""
    logits, truth = draw(seed, 30)
    logits += (apart * np.random.default_rng(seed).integers(0, 9, logits.shape)).astype(np.float32)
    (chosen,) = choose_thresholds(QUESTION, logits, truth, aim)
    decided = dataclasses.replace(QUESTION, thresholds=(chosen.value,))
    own = QUESTION.probabilities(_tensor(logits)).numpy()[:, 0]
    if chosen.value == 0.5:
        return
    assert (own > chosen.value).sum() == chosen.predicted
    for rounded in (own.astype(np.float32), own * (1 + 2e-7), own * (1 - 2e-7)):
        found = np.array(
            [make_prediction(decided, "x", [one]).predicted == "yes" for one in rounded.tolist()]
        )
        assert (found == decided.decide(_tensor(logits))[:, 0].numpy()).all()


def test_each_label_has_its_own_threshold_or_half():
    logits, truth = draw(1, 200)
    both, labels = np.hstack([logits, logits]), np.stack([truth, np.zeros_like(truth)], axis=1)
    task = MultiLabel(("scratch", "dent"), (0.3, 0.0))
    scratch, dent = choose_thresholds(task, both, labels, Aim("recall", 0.95))
    assert scratch.value != 0.5 == dent.value
    assert (
        dent.find_lack(Aim("f1"))
        == "0 images with dent are too few to support f1; about 30 are needed"
    )
    decided = dataclasses.replace(task, thresholds=(scratch.value, 0.9))
    assert make_prediction(decided, "x", [scratch.value + 0.01, 0.85]).predicted == ("scratch",)
    assert make_prediction(decided, "x", [scratch.value - 0.01, 0.95]).predicted == ("dent",)
    assert make_prediction(task, "x", [0.51, 0.85]).predicted == ("scratch", "dent")


def test_too_few_images_for_an_aim_are_named_with_the_number():
    logits, truth = draw(2, 30)
    (chosen,) = choose_thresholds(QUESTION, logits, truth, Aim("recall", 0.95))
    assert (
        chosen.find_lack(Aim("recall", 0.95))
        == f"{truth.sum()} images with scratch? are too few to support recall=0.95; about 73 are"
        " needed"
    )
    # With 72 images, even all of them found would not show a recall of 95 %; with 73, they would.
    assert wilson_interval(72, 72).low < 0.95 <= wilson_interval(73, 73).low
    enough = dataclasses.replace(chosen, positive=73, found=73)
    assert enough.find_lack(Aim("recall", 0.95)) == ""


@pytest.mark.parametrize("aim", ["recall", "recall=95", "10", "miss=0", "miss=nan", "recall=0"])
def test_what_is_no_aim_is_rejected(aim):
    with pytest.raises(RecipeError) as raised:
        Recipe(aim=aim)
    assert f"aim is {aim!r}; it must be f1, recall or precision" in str(raised.value)


def test_aims_have_one_text_and_fit_only_yes_or_no_and_labels():
    for text in ("f1", "recall=0.95", "precision=0.9", "miss=10"):
        assert str(parse_aim(text)) == text
    assert Recipe().find_aim(SINGLE_LABEL) is None
    for kind in (SINGLE_LABEL, REGRESSION):
        with pytest.raises(
            RecipeError, match=rf"^Thresholds for f1 need yes-or-no .* but these are {kind}\."
        ):
            Recipe(aim="f1").find_aim(kind)
    assert Recipe(aim="f1").find_aim(BINARY) == Aim("f1")


def gray(split: str, seed: int, images: int = 300) -> Images:
    generator = np.random.default_rng(seed)
    targets = generator.random(images) < 0.25
    pixels = generator.integers(60, 180, (images, 4, 4, 1)) + 25 * targets[:, None, None, None]
    return Images(
        pixels.astype(np.uint8), targets, ("scratch?",), tuple(map(str, range(images))), split
    )


def test_a_run_stores_its_thresholds_and_everything_uses_them(tmp_path):
    data = Dataset(
        name="parts",
        fingerprint="p",
        train=gray("train", 0),
        val=gray("val", 1),
        test=gray("test", 2),
        size_px=4,
    )
    recipe = Recipe(epochs=3, aim="recall=0.9", precision="fp32")
    run = start_run(data, Net(Flatten(), Output()), recipe, runs_dir=tmp_path)
    for _ in run.iter_train(data=data):
        pass
    run = load_run(run.path)
    (threshold,) = run.calibration.thresholds
    val, test = run.outputs["val"], run.outputs["test"]
    found = run.task.decide(_tensor(val.logits))[:, 0].numpy()
    assert sk.recall_score(val.targets, found) == threshold.found / threshold.positive >= 0.9
    predicted = run.task.decide(_tensor(test.logits))[:, 0].numpy()
    assert run.report.rows[1].metrics["recall"] == pytest.approx(
        sk.recall_score(test.targets, predicted)
    )
    assert run.report.metrics["accuracy"] == pytest.approx(
        sk.accuracy_score(test.targets, predicted)
    )
    assert (predicted != (test.logits[:, 0] > 0)).any()
    answers = [
        one.predicted == "yes" for one in run.predictor(device="cpu").predict(data.test.pixels)
    ]
    assert answers == predicted.tolist()
    stored = json.loads((run.path / "calibration.json").read_text())
    assert (stored["aim"], stored["thresholds"][0]["name"]) == ("recall=0.9", "scratch?")
    # as an exported file stores it
    assert Task.from_json(json.loads(json.dumps(run.task.to_json()))) == run.task

    few = dataclasses.replace(data, val=data.val.take(range(20)))
    small = start_run(few, Net(Flatten(), Output()), recipe, runs_dir=tmp_path)
    with pytest.warns(
        LaminaWarning, match=r"\d images with scratch\? are too few to support recall=0.9; about"
    ):
        for _ in small.iter_train(data=few):
            pass
    assert load_run(small.path).calibration.temperatures == ()
    assert load_run(small.path).predictor(device="cpu").task.cutoffs != (0.5,)
    none = dataclasses.replace(data, val=None)
    without = start_run(none, Net(Flatten(), Output()), recipe, runs_dir=tmp_path)
    with pytest.warns(
        LaminaWarning, match=r"There is no val split to choose thresholds for recall=0\.9 on"
    ):
        for _ in without.iter_train(data=none):
            pass


def test_curves_pass_through_the_threshold():
    logits, truth = draw(3, 150)
    task = dataclasses.replace(QUESTION, thresholds=(0.4,))
    figure = draw_thresholds(
        task, Outputs("test", logits, truth, tuple(map(str, range(len(truth)))))
    )
    for axes, is_roc in zip(figure.axes, (False, True), strict=True):
        line, point = axes.lines
        predicted = task.decide(_tensor(logits))[:, 0].numpy()
        recall, precision = sk.recall_score(truth, predicted), sk.precision_score(truth, predicted)
        false_alarms = (predicted & ~truth).sum() / (~truth).sum()
        expected = (false_alarms, recall) if is_roc else (recall, precision)
        assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx(expected)
        if is_roc:
            xs, ys = [0, *line.get_xdata()], [0, *line.get_ydata()]
            assert np.trapezoid(ys, xs) == pytest.approx(sk.roc_auc_score(truth, logits[:, 0]))
    one_sided = Outputs("test", logits, np.zeros_like(truth), tuple(map(str, range(len(truth)))))
    assert draw_thresholds(task, one_sided) is None


@pytest.mark.nightly  # three folds of 30 epochs; a shorter one is tested below
def test_a_cross_validation_calibrates_by_held_out_predictions(tmp_path):
    data = Dataset(
        name="parts", fingerprint="p", train=gray("train", 0, 200), test=gray("test", 2), size_px=4
    )
    recipe = Recipe(epochs=30, lr=0.02, batch_size=10, aim="f1", precision="fp32")
    net = Net(Flatten(), Linear(30), ReLU(), Output())
    found = cross_validate(data, net=net, folds=3, recipe=recipe, runs_dir=tmp_path, progress=False)
    run, outputs = load_run(found.run.path), found.outputs
    assert (run.calibration.split, run.calibration.images) == ("train", 200)
    assert run.calibration.temperatures == fit_temperatures(
        run.record.task, outputs.logits, outputs.targets
    )
    assert run.calibration.temperatures[0] > 1.5  # it has memorized the images
    assert run.report.calibration_error < run.report.uncalibrated_error
    raw = run.record.task.with_temperatures(run.calibration.temperatures)
    assert run.calibration.thresholds == choose_thresholds(
        raw, outputs.logits, outputs.targets, Aim("f1")
    )
    assert load_run(tmp_path / found.run.path.parent.name / "fold-1").calibration is None


def test_without_test_images_a_cross_validation_calibrates_too(tmp_path):
    data = Dataset(name="parts", fingerprint="p", train=gray("train", 0, 200), size_px=4)
    recipe = Recipe(epochs=3, batch_size=10, aim="f1", precision="fp32")
    found = cross_validate(
        data,
        net=Net(Flatten(), Output()),
        folds=3,
        recipe=recipe,
        runs_dir=tmp_path,
        progress=False,
    )
    run = load_run(found.run.path)
    assert run.report is None
    assert (run.calibration.images, run.calibration.aim, len(run.calibration.thresholds)) == (
        200,
        "f1",
        1,
    )


def test_an_aim_that_no_threshold_reaches_is_named():
    logits, truth = (
        np.array([[3.0], [2.0], [1.0], [-1.0]], np.float32),
        np.array([False, True, True, False]),
    )
    (chosen,) = choose_thresholds(QUESTION, logits, truth, Aim("precision", 0.9))
    assert (chosen.value, chosen.predicted, chosen.found) == (0.5, 3, 2)
    assert (
        chosen.find_lack(Aim("precision", 0.9))
        == "no threshold reaches precision=0.9 for scratch? on these images; 0.5 is used"
    )


@given(value=st.floats(0.01, 0.99), before=st.floats(0.5, 3), after=st.floats(0.5, 3))
def test_temperatures_change_no_decision(value, before, after):
    logits = torch.linspace(-30, 30, 601, dtype=torch.float64)[:, None]
    task = Binary(("yes?",), (0.5,), temperatures=(before,), thresholds=(value,))
    edge = before * math.log(value / (1 - value))
    far = (logits[:, 0] - edge).abs() > 0.01
    for other in (task.with_temperatures((after,)), task.with_temperatures(())):
        # Probabilities near 1 are rounded.
        is_apart = (other.probabilities(logits)[:, 0] - other.thresholds[0]).abs() > 1e-7
        assert torch.equal(
            other.decide(logits)[far & is_apart], task.decide(logits)[far & is_apart]
        )


@pytest.mark.parametrize("aim", [Aim("recall", 0.95), Aim("precision", 0.8)], ids=str)
@pytest.mark.parametrize("groups", [0, 100])
def test_an_aim_holds_on_new_images_in_95_percent_of_choices(aim, groups):
    """Thresholds that reached it on the images themselves missed it in 50 to 54 % of choices."""
    generator = np.random.default_rng(0)
    numbers = None
    if groups:
        numbers = torch.arange(groups).repeat_interleave(10)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        truth = generator.random(count) < 0.4
        logits = 2.5 * truth + generator.normal(size=count)
        if groups:
            logits += np.repeat(generator.normal(size=count // 10), 10)
        return logits.astype(np.float32)[:, None] - 1, truth

    new_logits, new_truth = draw(200_000)
    missed = 0
    for _ in range(200):
        logits, truth = draw(1000)
        (chosen,) = choose_thresholds(QUESTION, logits, truth, aim, numbers)
        above = new_logits[:, 0] > math.log(chosen.value / (1 - chosen.value))
        rows = new_truth if aim.name == "recall" else above
        missed += (above & new_truth)[rows].sum() / rows.sum() < aim.value
        assert (chosen.design_effect > 1) == bool(groups)
    assert missed <= 16  # 10 allowed; the 97.5 % quantile of a binomial distribution
