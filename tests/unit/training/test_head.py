"""A fitted head equals scikit-learn's, with the penalty that is best on held-out images."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from lamina.data import Images
from lamina.errors import RecipeError
from lamina.nets import Conv2d, GlobalAvgPool, Net, Output
from lamina.training import head as head_module
from lamina.training.events import FeatureProgress, HeadFit
from lamina.training.head import (
    FOLDS,
    PATIENCE,
    PENALTIES,
    USUAL_PENALTY,
    Head,
    choose_penalty,
    cross_fit,
    deal_folds,
    find_linear_head,
    fit_head,
    fit_model_head,
)
from lamina.training.loop import Training
from lamina.training.model import Model, build_model
from lamina.training.recipe import Recipe
from lamina.training.task import Task, task_of
from lamina.zoo import load_net
from support.timm_weights import create_timm

RECIPE = Recipe(epochs=1, batch_size=8, head="fitted", precision="fp32")


def graded_images(
    targets: np.ndarray, side_px: int = 4, names: tuple[str, ...] | None = None, contrast: int = 30
) -> Images:
    """Noise, which is a little brighter for larger targets."""
    generator = np.random.default_rng(0)
    level = np.asarray(targets, float).reshape(len(targets), -1)[:, 0]
    noise = generator.integers(0, 120, (len(targets), side_px, side_px, 3))
    return Images.from_arrays(
        (noise + contrast * (level - level.min())[:, None, None, None]).astype(np.uint8),
        targets,
        names,
    )


def draw_features(count: int = 240, seed: int = 0) -> torch.Tensor:
    """Twelve features far from zero, of very different scales."""
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(count, 12)) * np.geomspace(0.1, 30, 12) + 40
    return torch.from_numpy(drawn.astype(np.float32))


def tell(features: torch.Tensor) -> np.ndarray:
    """Three noisy scores that depend on the features."""
    generator = np.random.default_rng(1)
    z = ((features - features.mean(0)) / features.std(0)).numpy()
    return (z @ generator.normal(size=(12, 3)) + generator.normal(size=(len(z), 3))).astype(
        np.float32
    )


TARGETS = {
    "single-label": lambda scores: scores.argmax(axis=1),
    "multi-label": lambda scores: scores > 0.5,
    "binary": lambda scores: scores[:, 0] > 0.5,
    "regression": lambda scores: 7 * scores[:, :2] - 20,
}


def pose(kind: str, features: torch.Tensor) -> tuple[Task, torch.Tensor]:
    """The task of this kind whose targets depend on the features, and the targets."""
    targets = TARGETS[kind](tell(features))
    images = Images.from_arrays(np.zeros((len(targets), 1, 1, 1), np.uint8), targets)
    assert str(images.kind) == kind
    return task_of(images), torch.from_numpy(np.array(images.targets))


def scale(features: torch.Tensor, of: torch.Tensor) -> np.ndarray:
    """The features less the mean of ``of``, over the root of its mean square, in float64."""
    x, own = features.double().numpy(), of.double().numpy()
    return (x - own.mean(0)) / np.sqrt(((own - own.mean(0)) ** 2).mean())


def fit_by_scikit_learn(
    x: np.ndarray,
    task: Task,
    targets: torch.Tensor,
    penalty: float,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias for scaled features; the loss is a mean over labels, which divide ``C``."""
    if str(task.kind) == "regression":
        ridge = Ridge(alpha=penalty * task.outputs / 2).fit(
            x, task.prepare(targets, torch.float64).numpy()
        )
        return ridge.coef_.reshape(task.outputs, -1), np.atleast_1d(ridge.intercept_)
    options = {"C": 1 / penalty, "tol": 1e-10, "max_iter": 10_000}
    if str(task.kind) == "single-label":
        found = LogisticRegression(**options).fit(x, targets.numpy(), weights)
        return found.coef_, found.intercept_
    options["C"] /= task.outputs
    columns, parts = targets.numpy().reshape(len(targets), -1).T, []
    own = [None] * len(columns) if weights is None else weights.reshape(len(targets), -1).T
    for column, weight in zip(columns, own, strict=True):
        parts.append(LogisticRegression(**options).fit(x, column, weight))
    return np.concatenate([one.coef_ for one in parts]), np.concatenate(
        [one.intercept_ for one in parts]
    )


def center(logits: np.ndarray, task: Task) -> np.ndarray:
    """Logits without the constant of each image, which a softmax ignores."""
    return (
        logits - logits.mean(axis=1, keepdims=True) if str(task.kind) == "single-label" else logits
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "class weights"])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_head_is_the_one_that_scikit_learn_finds(kind, weighted):
    if weighted and kind == "regression":
        pytest.skip("numbers have no class weights")
    features = draw_features()
    task, targets = pose(kind, features)
    weights = task.weigh(targets) if weighted else None
    of_images = None if weights is None else weights.double().numpy()
    scaled = scale(features, features)
    for penalty in (300.0, 3.0, 0.3):
        weight, bias = fit_by_scikit_learn(scaled, task, targets, penalty, of_images)
        expected = center(scaled @ weight.T + bias, task)
        head = fit_head(features, targets, task, penalty, weights)
        errors = np.abs(center(head.logits(features).numpy(), task) - expected)
        largest = max(1.0, np.abs(expected).max())
        assert errors.max() < 0.02 * largest
        assert errors.mean() < 5e-3 * largest


@pytest.mark.parametrize("kind", TARGETS)
def test_the_bias_has_no_penalty(kind):
    """So even under a large penalty the mean prediction is the best for all images."""
    features = draw_features(24)
    task, targets = pose(kind, features)
    probabilities = task.probabilities(
        fit_head(features, targets, task, PENALTIES[0]).logits(features)
    ).numpy()
    columns = (
        np.eye(3)[targets.numpy()]
        if kind == "single-label"
        else targets.double().numpy().reshape(24, -1)
    )
    np.testing.assert_allclose(probabilities.mean(axis=0), columns.mean(axis=0), rtol=0.01)
    assert (probabilities.std(axis=0) < 0.2 * columns.std(axis=0)).all()


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_unit_and_zero_of_the_features_change_nothing(factor, offset):
    features = draw_features()
    task, targets = pose("single-label", features)
    plain = fit_head(features, targets, task, 3.0).logits(features)
    moved = factor * (features + offset)
    found = fit_head(moved, targets, task, 3.0).logits(moved)
    np.testing.assert_allclose(center(found.numpy(), task), center(plain.numpy(), task), atol=0.03)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("begin", ["another penalty", "far away"])
def test_a_warm_start_saves_steps_and_changes_nothing(kind, begin):
    features = draw_features()
    task, targets = pose(kind, features)
    far = Head(torch.full((task.outputs, 12), 0.5), torch.full((task.outputs,), -3.0))
    start = fit_head(features, targets, task, 30.0) if begin == "another penalty" else far
    before = dataclasses.replace(start, weight=start.weight.clone(), bias=start.bias.clone())
    cold = fit_head(features, targets, task, 3.0).logits(features).numpy()
    warm = fit_head(features, targets, task, 3.0, start=start).logits(features).numpy()
    assert np.abs(center(warm, task) - center(cold, task)).max() < 0.02 * max(
        1.0, np.abs(cold).max()
    )
    assert torch.equal(start.weight, before.weight)
    assert torch.equal(start.bias, before.bias)


@pytest.mark.parametrize("kind", TARGETS)
def test_held_out_logits_come_from_heads_without_the_image(kind):
    features = draw_features(90)
    task, targets = pose(kind, features)
    folds = torch.arange(90) % 3
    penalty = 30.0
    found = cross_fit(features, targets, folds, task, penalty)
    expected = np.empty((90, task.outputs))
    for fold in range(3):
        rest, held = folds != fold, folds == fold
        weight, bias = fit_by_scikit_learn(
            scale(features[rest], features[rest]), task, targets[rest], penalty
        )
        expected[held] = scale(features[held], features[rest]) @ weight.T + bias
        own = found.heads[fold].logits(features[held])
        assert torch.equal(own, found.logits[held])
    expected = center(expected, task)
    assert np.abs(center(found.logits.numpy(), task) - expected).max() < 0.05 * max(
        1.0, np.abs(expected).max()
    )


def deal_plain(strata, seed, folds=FOLDS, groups=()):
    """The folds of images with these classes and groups."""
    pixels = np.zeros((len(strata), 1, 1, 1), np.uint8)
    images = Images.from_arrays(pixels, np.array(strata), [str(number) for number in range(13)])
    return deal_folds(
        dataclasses.replace(images, groups=groups), np.arange(len(strata)), seed, folds
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_the_penalty_is_the_one_with_the_lowest_held_out_loss(kind):
    features = draw_features(60)
    task, targets = pose(kind, features)
    folds = deal_plain([0] * 60, 0)
    losses = []
    for penalty in PENALTIES:
        logits = torch.empty(60, task.outputs)
        for fold in range(3):
            rest = folds != fold
            head = fit_head(features[rest], targets[rest], task, penalty)
            logits[~rest] = head.logits(features[~rest])
        losses.append(task.loss(logits, task.prepare(targets)).item())
        last = len(losses) - 1
        if last >= PATIENCE and min(losses[:last]) <= min(losses[last - 1 :]):
            break  # a larger penalty has not been better twice
    best = PENALTIES[int(np.argmin(losses))]
    assert choose_penalty(features, targets, folds, task) == best


@pytest.mark.parametrize("kind", TARGETS)
def test_features_that_tell_the_targets_get_a_small_penalty(kind):
    features = draw_features()
    z = ((features - features.mean(0)) / features.std(0)).numpy()
    targets = torch.from_numpy(np.array(TARGETS[kind](4 * z[:, 9:])))
    task, _ = pose(kind, features)
    assert choose_penalty(features, targets, deal_plain([0] * 240, 0), task) <= 1.0


@pytest.mark.parametrize("kind", TARGETS)
def test_features_that_do_not_tell_them_get_a_large_one(kind):
    features = draw_features()
    task, targets = pose(kind, features)
    shuffled = targets[torch.from_numpy(np.random.default_rng(5).permutation(len(targets)))]
    assert choose_penalty(features, shuffled, deal_plain([0] * 240, 0), task) >= USUAL_PENALTY


def test_class_weights_decide_the_held_out_loss_too():
    features = draw_features()
    task, targets = pose("binary", features)
    plain = cross_fit(features, targets, deal_plain([0] * 240, 0), task, 30.0)
    heavy = cross_fit(
        features, targets, deal_plain([0] * 240, 0), task, 30.0, torch.where(targets, 50.0, 0.02)
    )
    assert heavy.logits.mean() > plain.logits.mean() + 1  # the positives weigh more


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 5), st.integers(1, 5))
def test_folds_and_their_strata_differ_by_one_image_at_most(strata, seed, folds):
    dealt = deal_plain(strata, seed, folds).tolist()
    assert set(dealt) <= set(range(folds))
    for chosen in (set(strata), *({stratum} for stratum in strata)):
        sizes = collections.Counter(
            fold for fold, stratum in zip(dealt, strata, strict=True) if stratum in chosen
        )
        counts = [sizes[fold] for fold in range(folds)]
        assert max(counts) - min(counts) <= 1
    assert deal_plain(strata, seed, folds).tolist() == dealt


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_a_group_is_in_one_fold(images, seed):
    strata, groups = zip(*images, strict=True)
    dealt = deal_plain(strata, seed, 3, tuple(map(str, groups))).tolist()
    found = collections.defaultdict(set)
    for group, fold in zip(groups, dealt, strict=True):
        found[group].add(fold)
    assert all(len(folds) == 1 for folds in found.values())
    assert set(dealt) <= {0, 1, 2}


def test_another_seed_deals_other_folds():
    assert not torch.equal(deal_plain([0] * 30, 0), deal_plain([0] * 30, 1))


class Pixels(nn.Module):
    """Features that are the pixels, from -10 to 10, and a linear head."""

    def __init__(self, outputs: int, side_px: int = 4, *, has_bias: bool = True) -> None:
        super().__init__()
        size = 3 * side_px**2
        self.trunk, self.head = nn.Linear(size, size), nn.Linear(size, outputs, bias=has_bias)
        self.trunk.weight = nn.Parameter(10 * torch.eye(size))
        nn.init.zeros_(self.trunk.bias)

    def forward(self, images):
        return self.head(self.trunk(images.flatten(1)))


FEW = {
    "one image": (np.array([0]), ("cat", "dog")),
    "two images": (np.array([0, 1]), None),
    "five images": (np.array([0, 1, 1, 0, 2]), None),
    "a class with one image": (np.array([0] * 12 + [1] * 11 + [2]), None),
    "all of one class": (np.zeros(20, int), ("cat", "dog")),
    "two of three classes": (np.array([0, 1] * 10), ("cat", "dog", "hen")),
    "one label": (np.zeros((9, 3), bool), ("x", "y", "z")),
    "only yes": (np.ones(9, bool), None),
    "a single number": (np.full(8, 2.5, np.float32), None),
    "one number": (np.array([1.5], np.float32), None),
}


@pytest.mark.parametrize("case", FEW)
def test_few_images_get_a_finite_head_that_predicts_them(case):
    targets, names = FEW[case]
    images = graded_images(targets, names=names)
    task = task_of(images)
    model = build_model(Pixels(task.outputs), images, RECIPE)
    *_, fit = fit_model_head(model, find_linear_head(model), images, RECIPE)
    assert fit.penalty in PENALTIES
    assert len(targets) >= 6 or fit.penalty == USUAL_PENALTY
    assert np.isfinite(fit.loss) == (len(targets) > 1)
    logits = torch.from_numpy(predict(model, images))
    assert torch.isfinite(logits).all()
    assert logits.abs().max() < 50
    prepared = task.prepare(torch.from_numpy(np.array(images.targets)))
    fitted = task.loss(logits, prepared)
    assert fitted < task.loss(torch.zeros_like(logits), prepared) + 1e-3
    if "all" in case or "only" in case or "number" in case:
        assert fitted < 0.01


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_images_without_a_difference_get_the_baseline(count):
    pixels = np.full((count, 4, 4, 3), 77, np.uint8)
    images = Images.from_arrays(pixels, np.arange(count) % 2, ("no", "yes"))
    model = build_model(Pixels(2), images, RECIPE)
    list(fit_model_head(model, find_linear_head(model), images, RECIPE))
    shares = np.bincount(images.targets) / count
    found = model.task.probabilities(torch.from_numpy(predict(model, images)))
    np.testing.assert_allclose(found, np.tile(shares, (count, 1)), atol=0.01)
    assert model.body.head.weight.abs().max() < 10


def predict(model: Model, images: Images) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(images.pixels)).float().numpy()


def find_inputs(model: Model, layer: nn.Module, images: Images) -> torch.Tensor:
    """The features of the images, from a pass through the whole model in fp32."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    predict(model, images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", TARGETS)
def test_only_the_head_changes_and_gives_the_models_logits(kind, precision):
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(60, 3)).astype(np.float32)
    images = graded_images(TARGETS[kind](scores), side_px=32, contrast=1)
    torch.manual_seed(0)
    module = create_timm("test_efficientnet", num_classes=task_of(images).outputs)
    training = Training(module, images, dataclasses.replace(RECIPE, precision=precision))
    model = training.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit = next(event for event in training if isinstance(event, HeadFit))
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "body.classifier.weight",
        "body.classifier.bias",
    }
    features = find_inputs(model, model.body.classifier, images).float()
    targets = torch.from_numpy(np.array(images.targets))
    expected = center(
        fit_head(features, targets, model.task, fit.penalty).logits(features).numpy(), model.task
    )
    tolerance = (0.01 if precision == "fp32" else 0.05) * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(center(predict(model, images), model.task), expected, atol=tolerance)
    np.testing.assert_allclose(
        center(training.predict_logits(images.pixels), model.task), expected, atol=tolerance
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_the_event_has_the_scores_of_a_cross_validation(kind, monkeypatch):
    monkeypatch.setattr("lamina.training.model.PREDICTED_PIXELS", 32 * 4**2)  # 32 images at once
    generator = np.random.default_rng(3)
    images = graded_images(TARGETS[kind](generator.normal(size=(40, 3)).astype(np.float32)))
    model = build_model(Pixels(task_of(images).outputs), images, RECIPE)
    *shown, fit = fit_model_head(model, find_linear_head(model), images, RECIPE)
    assert shown == [FeatureProgress(32, 40), FeatureProgress(40, 40)]
    assert (fit.images, fit.features) == (40, 48)
    features = find_inputs(model, model.body.head, images)
    targets = torch.from_numpy(images.targets)
    folds = deal_folds(images, np.arange(40), RECIPE.seed)
    logits = cross_fit(features, targets, folds, model.task, fit.penalty).logits
    assert fit.loss == pytest.approx(
        model.task.loss(logits, model.task.prepare(targets)).item(), rel=1e-3
    )
    correct = model.task.correct(logits, targets).item()
    assert fit.accuracy == (None if kind == "regression" else pytest.approx(correct / 40))
    assert set(fit.to_json()) == {
        "event",
        "images",
        "features",
        "penalty",
        "loss",
        "accuracy",
        "seconds",
    }


def test_what_is_printed_of_a_fit():
    fit = HeadFit(500, 1280, 30.0, 0.4567, 0.853, 1.26)
    assert (
        str(fit)
        == "head: fitted to 1,280 features of 500 images in 1.3 s (cross-validation: accuracy 85.3"
        " %, penalty 30)"
    )
    assert (
        str(dataclasses.replace(fit, accuracy=None))
        == "head: fitted to 1,280 features of 500 images in 1.3 s (cross-validation: loss 0.457,"
        " penalty 30)"
    )


def test_the_head_gets_class_weights_if_the_recipe_has_them():
    images = graded_images(np.array([0] * 50 + [1] * 4), contrast=3)
    recipe = dataclasses.replace(RECIPE, class_weights=True)
    model = build_model(Pixels(2), images, recipe)
    *_, fit = fit_model_head(model, find_linear_head(model), images, recipe)
    features, targets = (
        find_inputs(model, model.body.head, images),
        torch.from_numpy(np.array(images.targets)),
    )
    weights = model.task.weigh(targets)
    expected, plain = (
        fit_head(features, targets, model.task, fit.penalty, each).logits(features).numpy()
        for each in (weights, None)
    )
    np.testing.assert_allclose(predict(model, images), expected, atol=0.02)
    assert np.abs(expected - plain).max() > 0.5
    folds = deal_folds(images, np.arange(len(images)), recipe.seed)
    logits = cross_fit(features, targets, folds, model.task, fit.penalty, weights).logits
    loss = model.task.loss(logits, model.task.prepare(targets), weights=weights).item()
    assert fit.loss == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("most", [("FITTED_IMAGES", 20), ("CHOOSING_IMAGES", 10)], ids=str)
def test_of_many_images_some_are_fitted_and_some_choose(most, monkeypatch):
    monkeypatch.setattr(head_module, *most)
    images = graded_images(np.arange(50) // 25)
    model = build_model(Pixels(2), images, RECIPE)
    *shown, fit = fit_model_head(model, find_linear_head(model), images, RECIPE)
    assert fit.images == shown[-1].images == (20 if most[0] == "FITTED_IMAGES" else 50)
    assert round(fit.accuracy * most[1]) == pytest.approx(fit.accuracy * most[1])
    assert (predict(model, images).argmax(axis=1) == images.targets).mean() > 0.8


def test_the_same_seed_fits_the_same_head_and_draws_its_folds():
    images = graded_images(np.arange(40) % 2)

    def fit(seed: int) -> tuple[torch.Tensor, HeadFit]:
        recipe = dataclasses.replace(RECIPE, seed=seed)
        model = build_model(Pixels(2), images, recipe)
        *_, event = fit_model_head(model, find_linear_head(model), images, recipe)
        return model.body.head.weight.detach().clone(), event

    (one, first), (again, second), (_, other) = fit(0), fit(0), fit(1)
    assert torch.equal(one, again)
    assert first.loss == second.loss != other.loss


class Convolutional(nn.Module):
    """A net whose logits are the mean of a convolution's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1)

    def forward(self, images):
        return self.head(self.first(images).relu()).mean((2, 3))


class Scaled(Pixels):
    """A net that changes the outputs of its last linear layer."""

    def forward(self, images):
        return 2 * super().forward(images)


def build(net: Net | nn.Module, side_px: int = 32) -> Model:
    return build_model(net, graded_images(np.arange(12) % 3, side_px), RECIPE)


@pytest.mark.parametrize(
    ("net", "ending"),
    [
        (lambda: Pixels(3, 32), "head"),
        (lambda: load_net("mlp").with_outputs(3), ""),
        (lambda: load_net("cnn-s").with_outputs(3), ""),
        (lambda: Net(Conv2d(4, 3), GlobalAvgPool(), Output(3)), ""),
        (lambda: create_timm("test_efficientnet", num_classes=3), "classifier"),
        (lambda: create_timm("test_resnet", num_classes=3), "fc"),
        (lambda: create_timm("test_vit", num_classes=3, img_size=32), "head"),
        (lambda: create_timm("test_convnext", num_classes=3), "fc"),
    ],
)
def test_the_layer_that_computes_the_logits_is_found(net, ending):
    model = build(net())
    path = find_linear_head(model)
    assert path.startswith("body.")
    assert path.endswith(ending)
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    assert layer.out_features == 3


LINEAR = (
    "head is 'fitted', which needs a net whose logits are the output of one linear layer with a"
    " bias, but this net's last layer, "
)


@pytest.mark.parametrize(
    ("net", "ends"),
    [
        (Convolutional, "body.head (Conv2d(8, 3, kernel_size=(1, 1), stride=(1, 1)))"),
        (lambda: Scaled(3, 32), "body.head (Linear(in_features=3072, out_features=3, bias=True))"),
        (
            lambda: Pixels(3, 32, has_bias=False),
            "body.head (Linear(in_features=3072, out_features=3, bias=False))",
        ),
        (
            lambda: create_timm(
                "deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, depth=1
            ),
            "body.head_dist (Linear(in_features=192, out_features=3, bias=True))",
        ),
    ],
)
def test_other_heads_are_rejected_before_the_first_step(net, ends):
    with pytest.raises(RecipeError) as rejected:
        Training(net(), graded_images(np.arange(12) % 3, 32), RECIPE)
    assert (
        str(rejected.value) == f"{LINEAR}{ends}, does not compute its logits. Set head to 'random'."
    )
