"""Custom functions in training: docs/howto/extend.md, exact resuming, several processes, errors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lamina import (
    Epoch,
    LaminaError,
    LaminaWarning,
    Recipe,
    Training,
    Variant,
    compare,
    evaluate,
    load_run,
    start_run,
)
from lamina.data import Dataset, Images
from lamina.errors import RecipeError, RunError
from lamina.evaluation.evaluating import score
from lamina.evaluation.paired import score_images
from lamina.nets import Dropout, Flatten, Linear, Net, Output, ReLU
from lamina.training.custom import LowerIsBetter, Parts, describe_part
from support.runs import DATA, RECIPE, digests, finish_run

NET = Net(Flatten(), Linear(8), ReLU(), Dropout(0.5), Output())


def test_parts_written_by_hand_give_the_weights_of_a_recipe(tmp_path: Path) -> None:
    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, targets)

    own = {
        "loss": loss,
        "optimizer": lambda parameters, recipe: torch.optim.Adam(
            parameters, lr=recipe.lr, fused=True
        ),
        "augment": lambda images, targets: (images, targets),
        "schedule": lambda done: 1 - done,
    }
    recipe = dataclasses.replace(RECIPE, precision="fp32")
    named = finish_run(
        start_run(DATA, NET, dataclasses.replace(recipe, schedule="linear"), runs_dir=tmp_path)
    )
    by_hand = finish_run(
        start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=Parts(**{**own, "augment": None}))
    )
    assert digests(by_hand) == digests(named)
    augmented = finish_run(start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=Parts(**own)))
    weights = [run.load_model().state_dict() for run in (named, augmented)]
    for name, value in weights[0].items():  # pixels go to 1 and back to 255, which rounds
        torch.testing.assert_close(weights[1][name], value, atol=1e-4, rtol=1e-3)


class Counting(torch.optim.Optimizer):
    """Gradient descent that stores a number in each group and for each weight."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "scale": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            group["scale"] *= 0.9
            for weight in group["params"]:
                state = self.state[weight]
                state["steps"] = state.get("steps", 0) + 1
                state["row"] = state.get("row", torch.zeros(3)) + 1
                weight -= group["lr"] * group["scale"] / state["steps"] * weight.grad


def test_what_an_optimizer_keeps_outside_tensors_is_resumed_too(tmp_path: Path) -> None:
    def build(parameters: Any, recipe: Recipe) -> Counting:
        return Counting(parameters, recipe.lr)

    straight = finish_run(
        start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(optimizer=build))
    )
    stopped = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(optimizer=build))
    next(event for event in stopped.iter_train() if isinstance(event, Epoch))
    again = load_run(stopped.path, parts=Parts(optimizer=build))
    again.train(data=DATA, progress=False)
    assert digests(again) == digests(straight)


def test_metrics_are_in_history_and_report(tmp_path: Path) -> None:
    data = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test, split="val"))
    metrics = {
        "top_2": lambda logits, targets: (
            (logits.topk(2).indices == targets[:, None]).any(1).float().mean()
        ),
        "undefined": lambda logits, targets: float("nan"),
    }
    run = start_run(data, NET, RECIPE, runs_dir=tmp_path, parts=Parts(metrics=metrics))
    not_finite = "^the metric undefined is nan, which is not a finite number$"
    with pytest.warns(LaminaWarning, match=not_finite):
        report = run.train(progress=False)
    probabilities = run.predictor().probabilities(DATA.test.pixels)
    best = np.argsort(probabilities, axis=1)[:, -2:]
    assert report.metrics["top_2"] == pytest.approx(
        np.mean([t in row for t, row in zip(DATA.test.targets, best, strict=True)])
    )
    assert report.metrics["undefined"] is None
    assert f"top_2 {report.metrics['top_2']:.4g}, loss" in str(report)
    last = run.folder.read_epochs()[-1]
    assert 0 < last["val_top_2"] <= 1
    assert last["val_undefined"] is None
    assert load_run(run.path).report.metrics == report.metrics
    with pytest.warns(
        LaminaWarning,
        match=r"without their functions: top_2, undefined\. Pass them again, as in load_run",
    ):
        assert "top_2" not in load_run(run.path).evaluate(data=data).metrics
    with pytest.warns(LaminaWarning, match=not_finite):
        again = evaluate(run.load_model(), DATA.test, metrics=metrics)
    assert again.metrics == report.metrics


def test_a_run_asks_for_its_parts_again_and_predicts_without(tmp_path: Path) -> None:
    loss = functional.cross_entropy
    run = start_run(
        DATA,
        NET,
        RECIPE,
        runs_dir=tmp_path,
        name="own",
        parts=Parts(loss=loss, schedule=lambda done: 1.0),
    )
    next(event for event in run.iter_train() if isinstance(event, Epoch))
    alone = load_run(run.path)
    with pytest.raises(RunError) as refused:
        alone.train(data=DATA)
    assert (
        str(refused.value)
        == f"{run.path} was started with your own functions, which the run does not store. Pass"
        f" them again in Python, load_run({str(run.path)!r}, parts=Parts(…)).train(): loss is"
        f" torch.nn.functional.cross_entropy, schedule is {run.record.parts['schedule']}."
    )
    assert alone.predictor().probabilities(DATA.test.pixels).shape == (12, 3)
    with pytest.raises(
        RunError, match=r"was started without your own optimizer\. Leave it out, or start a new run"
    ):
        load_run(
            run.path,
            parts=Parts(
                loss=loss,
                schedule=lambda done: 1.0,
                optimizer=lambda weights, _: torch.optim.SGD(weights),
            ),
        ).train(data=DATA)
    other = load_run(run.path, parts=Parts(loss=functional.nll_loss, schedule=lambda done: 1.0))
    with pytest.warns(
        LaminaWarning,
        match=r"^loss was torch.nn.functional.cross_entropy and is now torch.nn.functional.nll",
    ):
        other.train(data=DATA, progress=False)


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, targets)


def use(**parts: Any) -> Callable[[Path], object]:
    return lambda folder: finish_run(
        start_run(DATA, NET, RECIPE, runs_dir=folder, parts=Parts(**parts))
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            use(loss=3),
            "loss must be a function, got 3. docs/howto/extend.md describes its arguments.",
        ),
        (
            use(metrics={"my score": focal}),
            (
                "metrics has the name 'my score'; a name must be an identifier that lamina does not"
                " use. Use a name such as top_2."
            ),
        ),
        (
            use(metrics={"accuracy": focal}),
            (
                "metrics has the name 'accuracy'; a name must be an identifier that lamina does not"
                " use."
            ),
        ),
        (
            use(
                loss=lambda logits, targets: functional.cross_entropy(
                    logits, targets, reduction="none"
                )
            ),
            (
                "loss must return a scalar, the mean over the batch, but test_own_parts.<lambda>"
                " returned a tensor of shape (4,). Return loss.mean()."
            ),
        ),
        (
            use(loss=lambda logits, targets: 1.0),
            "loss must return a tensor, but test_own_parts.<lambda> returned float.",
        ),
        (
            use(loss=lambda logits, targets: functional.cross_entropy(logits.detach(), targets)),
            (
                "loss must be differentiable, but test_own_parts.<lambda> returned a tensor without"
                " a gradient. Compute it from the logits."
            ),
        ),
        (
            use(loss=nn.PReLU()),
            (
                "loss must not have trainable parameters, but torch.nn.modules.activation.PReLU"
                " has. Move them to the net."
            ),
        ),
        (
            use(optimizer=lambda parameters, recipe: None),
            (
                "optimizer must return a torch.optim.Optimizer, but test_own_parts.<lambda>"
                " returned NoneType. Return one, such as torch.optim.SGD(parameters, lr=recipe.lr)."
            ),
        ),
        (
            use(
                optimizer=lambda parameters, recipe: torch.optim.SGD(
                    [nn.Parameter(torch.ones(1))], lr=0.1
                )
            ),
            (
                "optimizer must train only the parameters of the net, but test_own_parts.<lambda>"
                " returned an optimizer with 1 other parameters. Make them parameters of a module"
                " in the net."
            ),
        ),
        (
            use(augment=lambda images, targets: images),
            "augment must return images and targets, but test_own_parts.<lambda> returned Tensor.",
        ),
        (
            use(augment=lambda images, targets: (images[:2], targets)),
            (
                "augment must return images as float32 (4, 3, 6, 6), like its input, but"
                " test_own_parts.<lambda> returned torch.float32 (2, 3, 6, 6)."
            ),
        ),
        (
            use(metrics=[focal]),
            "metrics must be a dictionary of functions by name, got [<function focal",
        ),
        (
            use(loss=lambda logits, targets: functional.cross_entropy(logits, targets) + math.nan),
            (
                "The loss became NaN at step 1 of epoch 1. The first values that are not finite:"
                " your loss, test_own_parts.<lambda>, for logits up to "
            ),
        ),
        (
            use(schedule=lambda done: -1.0),
            (
                "schedule returned -1.0 at fraction 0 of the steps; test_own_parts.<lambda> must"
                " return a factor of the learning rate, 0 or more, such as 1 - done."
            ),
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused_in_its_own_words(
    act: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(LaminaError) as refused:
        act(tmp_path)
    assert str(refused.value).startswith(message.replace("test_own_parts", __name__))


def test_what_a_recipe_says_beside_a_part_is_refused_or_dropped(
    tmp_path: Path,
) -> None:
    loss = functional.cross_entropy
    for recipe, parts, message in (
        (
            Recipe(label_smoothing=0.1),
            {"loss": loss},
            "label_smoothing is 0.1, but one of your own parts replaces it.",
        ),
        (
            Recipe(class_weights=True),
            {"loss": loss},
            "class_weights is True, but one of your own parts replaces it.",
        ),
        (
            Recipe(warmup_fraction=0.1),
            {"schedule": abs},
            "warmup_fraction is 0.1, but one of your own parts replaces it.",
        ),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=Parts(**parts))
    assert list(tmp_path.iterdir()) == []
    chosen = start_run(DATA_16, "cnn-s", runs_dir=tmp_path, parts=Parts(loss=loss)).record.recipe
    assert chosen.label_smoothing == 0
    assert start_run(DATA_16, "cnn-s", runs_dir=tmp_path).record.recipe.label_smoothing > 0


DATA_16 = Dataset.from_images(
    Images.from_arrays(
        np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
        np.arange(12) % 3,
    )
)


def test_functions_may_change_their_arguments(tmp_path: Path) -> None:
    def spoil_logits(logits: torch.Tensor, targets: torch.Tensor) -> float:
        targets.zero_()
        return float(logits.fill_(0).sum())

    def spoil_images(
        images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return images.mul_(0.5), targets.zero_()

    before = DATA.train.pixels.copy(), DATA.train.targets.copy()
    plain = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    spoilt = start_run(
        DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(metrics={"spoil": spoil_logits})
    )
    reports = [run.train(progress=False) for run in (plain, spoilt)]
    assert reports[0].score == reports[1].score
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(augment=spoil_images))
    run.train(progress=False)
    # the classes no longer apply
    assert all(row["train_accuracy"] is None for row in run.folder.read_epochs())
    assert np.array_equal(DATA.train.pixels, before[0])
    assert np.array_equal(DATA.train.targets, before[1])


@pytest.mark.parametrize("kind", ["multi-label", "binary", "regression"])
def test_targets_of_every_kind_have_the_form_of_the_logits(kind: str, tmp_path: Path) -> None:
    numbers = 1000.5 + np.arange(12, dtype=np.float32)[:, None] ** 2
    targets = {
        "multi-label": np.arange(24).reshape(12, 2) % 3 == 0,
        "binary": np.arange(12) % 2 == 0,
    }.get(kind, numbers)
    images = Images.from_arrays(DATA.train.pixels, targets)
    loss = functional.mse_loss if kind == "regression" else nn.BCEWithLogitsLoss()
    errors = []

    def measure_error(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        errors.append(float((logits - truth.float().view_as(logits)).abs().mean()))
        return torch.tensor(errors[-1])

    data = Dataset.from_images(images, test=Images.from_arrays(255 - DATA.train.pixels, targets))
    runs = [
        finish_run(
            start_run(
                data,
                NET,
                RECIPE,
                runs_dir=tmp_path,
                parts=Parts(metrics={"error": measure_error}, **parts),
            )
        )
        for parts in (
            {},
            {"loss": loss},
            {"loss": loss, "augment": lambda images, targets: (images, targets.clone())},
        )
    ]
    assert digests(runs[0]) == digests(runs[1])
    rows = [run.folder.read_epochs() for run in runs]
    assert rows[2][-1]["train_loss"] == pytest.approx(rows[1][-1]["train_loss"], rel=1e-3)
    if kind == "regression":  # in units, and one decimal of a report's
        assert runs[0].report.metrics["error"] == pytest.approx(
            runs[0].report.metrics["mean_absolute_error"], rel=1e-5
        )


def test_a_metric_that_fails_is_named_and_the_training_goes_on(tmp_path: Path) -> None:
    def fail(logits: torch.Tensor, targets: torch.Tensor) -> float:
        raise ValueError("no such class")

    metrics = {"broken": fail, "worded": lambda logits, targets: "0.5"}
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(metrics=metrics))
    with (
        pytest.warns(LaminaWarning, match=r"^the metric broken failed: ValueError: no such class$"),
        pytest.warns(
            LaminaWarning,
            match=r"^the metric worded failed: TypeError: it returned text, not a number$",
        ),
    ):
        report = run.train(progress=False)
    assert (report.metrics["broken"], report.metrics["worded"]) == (None, None)


def measure_doubt(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean probability of other classes than the true one."""
    return 1 - logits.softmax(1).gather(1, targets[:, None]).mean()


def find_top_2(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (logits.topk(2).indices == targets[:, None]).any(1).float().mean()


@pytest.mark.parametrize(
    ("metric", "lower"), [(find_top_2, False), (LowerIsBetter(measure_doubt), True)]
)
def test_a_metric_of_ones_own_is_the_score(metric: Any, lower: bool, tmp_path: Path) -> None:
    data = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test, split="val"))
    recipe = dataclasses.replace(RECIPE, metric="own", epochs=3)
    parts = Parts(metrics={"own": metric})
    run = start_run(data, NET, recipe, runs_dir=tmp_path, parts=parts)
    epochs = [event for event in run.iter_train(data=data) if isinstance(event, Epoch)]
    report = run.report
    assert report is not None
    assert (report.score.name, report.score.lower_is_better) == ("own", lower)
    assert report.score.value == report.metrics["own"]
    assert report.values() == {
        "test_accuracy": report.metrics["accuracy"],
        "test_own": report.score.value,
    }
    assert (report.baseline, report.score_interval, report.undefined) == (None, None, None)
    lines = str(report).splitlines()
    assert lines[0] == f"test own {report.score.value:.4g} (12 images)"
    assert lines[1] == "no baseline, because the score is your own metric"
    rows = run.folder.read_epochs()
    scores = [event.score for event in epochs]
    assert [score.name for score in scores if score] == ["own", "own"]
    assert [row.get("val_own") for row in rows] == [score and score.value for score in scores]
    stored = load_run(run.path)
    assert stored.report == report
    described = f"LowerIsBetter({describe_part(metric)})" if lower else describe_part(metric)
    assert stored.record.parts == {"metrics.own": described}
    with pytest.raises(LaminaError, match="is own, your own metric, but models are compared by"):
        score_images(stored.record.task, run.outputs["test"])
    with pytest.raises(LaminaError, match="is own, your own metric, but models are compared by"):
        compare(run, Variant("own", NET, Recipe(metric="own")), data, seeds=2, progress=False)
    with pytest.warns(LaminaWarning, match="own metrics cannot be computed"):
        without = stored.evaluate(data=data)
    assert (without.score.name, without.undefined) == ("accuracy", "own")
    reason = "it is your own metric and its function was not passed; the score is the accuracy"
    assert f"\ntest own is undefined, because {reason}\n" in str(without)
    logits = run.outputs["test"].logits
    assert score(stored.record.task, logits, DATA.test.targets).name == "accuracy"


@pytest.mark.parametrize("lower", [False, True])
def test_patience_follows_a_metric_of_ones_own(lower: bool, tmp_path: Path) -> None:
    calls = itertools.count()

    def count(logits: torch.Tensor, targets: torch.Tensor) -> int:
        return next(calls)

    data = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test, split="val"), test=None)
    recipe = dataclasses.replace(RECIPE, metric="count", epochs=8, patience=1)
    parts = Parts(metrics={"count": LowerIsBetter(count) if lower else count})
    run = start_run(data, NET, recipe, runs_dir=tmp_path, parts=parts)
    run.train(progress=False)
    if lower:
        assert run.end
        assert run.end.startswith("val count has not improved since epoch ")
        assert len(run.folder.read_epochs()) < 8
    else:
        assert run.end == ""
        assert len(run.folder.read_epochs()) == 8


def test_a_run_resumes_only_with_its_score_of_ones_own(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, metric="doubt", epochs=3)
    parts = Parts(metrics={"doubt": LowerIsBetter(measure_doubt), "top_2": find_top_2})
    run = start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=parts)
    next(event for event in run.iter_train(data=DATA) if isinstance(event, Epoch))
    with pytest.raises(RunError) as raised:
        load_run(run.path).train(data=DATA, progress=False)
    assert str(raised.value) == (
        f"{run.path} was started with your own functions, which the run does not store. Pass them"
        f" again in Python, load_run({str(run.path)!r}, parts=Parts(…)).train(): metrics.doubt is"
        f" LowerIsBetter({__name__}.measure_doubt), metrics.top_2 is {__name__}.find_top_2."
    )
    other = load_run(run.path, parts=Parts(metrics={"doubt": measure_doubt}))
    with pytest.warns(LaminaWarning, match=r"^metrics.doubt was LowerIsBetter\(.*\) and is now"):
        assert next(other.iter_train(data=DATA))
    score_only = Parts(metrics={"doubt": LowerIsBetter(measure_doubt)})
    with pytest.warns(LaminaWarning, match="own metrics cannot be computed .*: top_2"):
        report = load_run(run.path, parts=score_only).train(data=DATA, progress=False)
    assert (report.score.name, report.score.lower_is_better) == ("doubt", True)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (float("nan"), "is nan, which is not a finite number"),
        (ValueError("no such class"), "failed: ValueError: no such class"),
        ("0.5", "failed: TypeError: it returned text, not a number"),
    ],
)
def test_a_score_of_ones_own_that_fails_is_an_error(
    result: Any, problem: str, tmp_path: Path
) -> None:
    def measure(logits: torch.Tensor, targets: torch.Tensor) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    recipe = dataclasses.replace(RECIPE, metric="own")
    run = start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=Parts(metrics={"own": measure}))
    with pytest.raises(RecipeError) as raised:
        run.train(progress=False)
    assert str(raised.value) == (
        f"Your metric own, which is the score, {problem}. It must return a finite number for any"
        " split; fix it, or choose another score with Recipe(metric=…)."
    )


def test_the_score_must_be_a_known_metric(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, metric="top_3")
    with pytest.raises(RecipeError) as raised:
        start_run(DATA, NET, recipe, runs_dir=tmp_path, parts=Parts(metrics={"top_2": find_top_2}))
    assert str(raised.value) == (
        "metric is 'top_3', which is neither a metric of lamina nor one of your own,"
        " parts=Parts(metrics={name: function}). Did you mean top_2?"
    )
    for name in ("auc", "loss"):
        with pytest.raises(RecipeError, match="that lamina does not use"):
            Parts(metrics={name: find_top_2})


def test_after_an_error_in_a_function_the_run_resumes(tmp_path: Path) -> None:
    calls = []

    def stumble(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        if len(calls) == 5:
            raise KeyError("a slip of one's own")
        return functional.cross_entropy(logits, targets)

    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(loss=stumble))
    with pytest.raises(KeyError, match="a slip") as stopped:
        run.train(progress=False)
    assert stopped.value.__notes__ == [
        f"The last checkpoint is in {run.path}; load_run(…).train() resumes from it."
    ]
    run.train(progress=False)
    straight = finish_run(
        start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(loss=functional.cross_entropy))
    )
    assert digests(run) == digests(straight)


def test_what_no_checkpoint_can_hold_is_named(
    tmp_path: Path,
) -> None:
    def keep_a_list(parameters: Any, recipe: Recipe) -> Counting:
        optimizer = Counting(parameters, recipe.lr)
        optimizer.param_groups[0]["past"] = [0.0]
        return optimizer

    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(optimizer=keep_a_list))
    with pytest.warns(
        LaminaWarning, match=r"^Counting has past in its state, which a checkpoint cannot store"
    ):
        next(event for event in run.iter_train() if isinstance(event, Epoch))


def test_the_stored_learning_rate_holds_when_the_optimizer_changes(tmp_path: Path) -> None:
    def build(parameters: Any, recipe: Recipe) -> torch.optim.SGD:
        return torch.optim.SGD(parameters, lr=recipe.lr)

    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(optimizer=build))
    next(event for event in run.iter_train() if isinstance(event, Epoch))
    other = load_run(
        run.path,
        parts=Parts(optimizer=lambda parameters, recipe: torch.optim.SGD(parameters, lr=0.5)),
    )
    with pytest.warns(LaminaWarning, match=r"^optimizer was .*build and is now"):
        events = list(other.iter_train(data=DATA))
    assert {event.lr for event in events if isinstance(event, Epoch)} == {RECIPE.lr}


def test_numpys_and_pythons_random_numbers_are_the_same_again(tmp_path: Path) -> None:
    def shake(images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images * random.random() + np.random.rand(), targets

    runs = [
        finish_run(start_run(DATA, NET, RECIPE, runs_dir=tmp_path, parts=Parts(augment=shake)))
        for _ in range(2)
    ]
    assert digests(runs[0]) == digests(runs[1])


def test_an_optimizer_that_leaves_weights_out_causes_a_warning() -> None:
    with pytest.warns(
        LaminaWarning, match=r"does not train 2 of 4 parameters: 4\.weight, 4\.bias$"
    ):
        training = Training(
            NET,
            DATA.train,
            RECIPE,
            parts=Parts(
                optimizer=lambda parameters, recipe: torch.optim.SGD(parameters[:2], lr=0.1)
            ),
        )
    before = training.model.body[4].weight.clone()
    list(training)
    assert torch.equal(training.model.body[4].weight, before)


def test_a_bound_part_is_recorded_by_its_function() -> None:
    parts = Parts(loss=functools.partial(functional.cross_entropy, label_smoothing=0.1))
    assert parts.describe() == {"loss": "torch.nn.functional.cross_entropy"}
    assert Parts(loss=nn.CrossEntropyLoss()).describe() == {
        "loss": "torch.nn.modules.loss.CrossEntropyLoss"
    }
