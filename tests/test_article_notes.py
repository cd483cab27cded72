"""The statements of docs/article-notes.md, checked on PyTorch and on the article's own code."""

from __future__ import annotations

import ast
import importlib
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.evaluation.intervals import wilson_interval

ROOT = Path(__file__).parents[1]
ARTICLE = Path(os.environ.get("LAMINA_ARTICLE") or ROOT.parent / "shared" / "article.md")


@pytest.fixture
def article() -> str:
    if not ARTICLE.is_file():
        pytest.skip("the article is neither at LAMINA_ARTICLE nor beside the checkout")
    return ARTICLE.read_text(encoding="utf-8")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("article")


def define_class(script: str, name: str) -> Any:
    """Run a script's imports and one of its classes, and return the class."""
    tree = ast.parse(script)
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.ClassDef) and node.name == name)
    ]
    namespace: dict[str, Any] = {}
    exec(compile(tree, "article.md", "exec"), namespace)
    return namespace[name]


def count_parameters(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


# The article's own code


def test_parameters_of_the_articles_nets(article: str, benchmark: ModuleType) -> None:
    mlp = define_class(benchmark.extract_script(article, "mlp"), "MLP")(32 * 32 * 3, 100, 10)
    cnn = define_class(benchmark.extract_script(article, "cnn"), "CNN")(10)

    assert count_parameters(mlp) == 308_310
    assert count_parameters(cnn) == 591_914
    assert count_parameters(cnn.fc1) == 524_416
    assert (
        sum(count_parameters(layer) for layer in (cnn.bn1, cnn.bn2, cnn.bn3, cnn.bn4, cnn.bn5))
        == 640
    )
    assert (
        count_parameters(
            nn.Sequential(nn.Linear(3072, 200), nn.Linear(200, 150), nn.Linear(150, 10))
        )
        == 646_260
    )


def test_biases_before_a_batch_norm_learn_nothing(article: str, benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    cnn = define_class(benchmark.extract_script(article, "cnn"), "CNN")(10).double()
    images, targets = torch.randn(20, 3, 32, 32, dtype=torch.float64), torch.randint(10, (20,))

    F.cross_entropy(cnn(images), targets).backward()

    layers = (cnn.conv1, cnn.conv2, cnn.conv3, cnn.conv4, cnn.fc1)
    assert sum(layer.bias.numel() for layer in layers) == 320
    for layer in layers:
        assert layer.bias.grad.abs().max() < 1e-12 * layer.weight.grad.norm()
    assert cnn.fc2.bias.grad.abs().max() > 1e-3


def test_the_mlps_outputs_ignore_the_order_of_the_pixels(
    article: str, benchmark: ModuleType
) -> None:
    mlp = define_class(benchmark.extract_script(article, "mlp"), "MLP")(3072, 100, 10).double()
    images, order = torch.randn(5, 3072, dtype=torch.float64), torch.randperm(3072)
    expected = mlp(images)

    with torch.no_grad():
        mlp.fc1.weight.copy_(mlp.fc1.weight[:, order])

    torch.testing.assert_close(mlp(images[:, order]), expected)


def test_the_cnn_script_is_the_mlp_script_with_another_net(
    article: str, benchmark: ModuleType
) -> None:
    mlp = benchmark.extract_script(article, "mlp")
    cnn = benchmark.extract_script(article, "cnn")

    assert mlp in article
    assert "class MLP(nn.Module):" in mlp
    assert "class MLP" not in cnn
    assert "class CNN(nn.Module):" in cnn
    assert "model = CNN(num_classes).to(device)\n" in cnn
    assert "reshape" not in cnn
    after_class = "## Device configuration"
    assert cnn[cnn.index(after_class) :] == mlp[mlp.index(after_class) :].replace(
        "MLP(input_size, hidden_size, num_classes)", "CNN(num_classes)"
    ).replace("images.reshape(-1, input_size)", "images")


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_an_instrumented_script_trains(
    article: str, benchmark: ModuleType, net: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
    image_set = tmp_path / "images.npz"
    targets = np.arange(30) % 10
    np.savez(
        image_set,
        train_pixels=pixels,
        train_targets=targets,
        test_pixels=pixels,
        test_targets=targets,
    )
    script = tmp_path / "script.py"
    script.write_text(
        benchmark.instrument_script(
            benchmark.extract_script(article, net), image_set, seed=1, epochs=2
        ),
        encoding="utf-8",
    )

    row = benchmark.train_by_script(script, net, seed=1, epochs=2)

    assert row.test_accuracy in [correct / 30 for correct in range(31)]
    assert 0 < row.epochs_seconds < row.printed_seconds <= row.process_seconds


def test_a_changed_article_is_refused(benchmark: ModuleType) -> None:
    message = "expected one code block with the training script in the article, found 0"
    with pytest.raises(ValueError, match=message):
        benchmark.extract_script("# Deep learning\n\n```python\nimport torch\n```\n", "mlp")


# Statements about PyTorch


@pytest.mark.parametrize("momentum", [0.1, 0.9])
def test_momentum_of_batch_norm_weighs_the_new_value(momentum: float) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        images = torch.randn(4, 3, 5, 5, dtype=torch.float64)
        norm(images)
        mean = (1 - momentum) * mean + momentum * images.mean(dim=(0, 2, 3))
        variance = (1 - momentum) * variance + momentum * images.var(dim=(0, 2, 3), correction=1)

    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def test_no_grad_leaves_the_flags_and_stops_recording() -> None:
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        outputs = linear(torch.ones(1, 2))
        assert all(weights.requires_grad for weights in linear.parameters())
    assert not outputs.requires_grad


def test_cross_entropy_is_the_mean_over_the_batch_of_minus_log_softmax() -> None:
    logits, targets = torch.randn(7, 10, dtype=torch.float64), torch.randint(10, (7,))
    one_hot = F.one_hot(targets, 10)
    expected = -(one_hot * logits.softmax(dim=1).log()).sum(dim=1).mean()

    torch.testing.assert_close(nn.CrossEntropyLoss()(logits, targets), expected)


def test_the_logarithm_of_a_probability_underflows_and_cross_entropy_does_not() -> None:
    logits = torch.tensor([[0.0, 200.0]])

    assert logits.softmax(dim=1)[0, 0].log() == -math.inf
    assert nn.CrossEntropyLoss()(logits, torch.tensor([0])) == 200


def test_sigmoids_do_not_sum_to_one_and_softmax_does() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0])

    assert logits.sigmoid().sum().item() == pytest.approx(2.1119, abs=1e-4)
    assert logits.softmax(dim=0).sum().item() == pytest.approx(1)


def test_softmax_before_cross_entropy_keeps_a_perfect_prediction_at_a_loss() -> None:
    targets = torch.arange(10)
    logits = F.one_hot(targets, 10) * 1000.0

    assert nn.CrossEntropyLoss()(logits, targets).item() == 0
    assert nn.CrossEntropyLoss()(logits.softmax(dim=1), targets).item() == pytest.approx(
        math.log(math.e + 9) - 1
    )


def test_evaluation_mode_is_another_function_than_training_mode() -> None:
    norm = nn.BatchNorm1d(3)
    batch = torch.randn(8, 3) * 2 + 1
    trained = norm(batch)
    expected = (batch - norm.running_mean) / (norm.running_var + norm.eps).sqrt()

    norm.eval()

    torch.testing.assert_close(norm(batch), expected)
    assert not torch.allclose(norm(batch), trained)


def first_step(optimizer_kind: type[torch.optim.Optimizer], gradient: Tensor) -> Tensor:
    """Where a weight at zero goes with a learning rate of 1e-3."""
    weight = nn.Parameter(torch.zeros_like(gradient))
    optimizer = optimizer_kind([weight], lr=1e-3)
    (weight * gradient).sum().backward()
    assert weight.tolist() == [0] * len(gradient)
    optimizer.step()
    return weight.detach()


def test_only_plain_sgd_steps_along_the_gradient() -> None:
    gradient = torch.tensor([100.0, -0.001])

    torch.testing.assert_close(first_step(torch.optim.SGD, gradient), -1e-3 * gradient)
    torch.testing.assert_close(
        first_step(torch.optim.Adam, gradient), -1e-3 * gradient.sign(), rtol=1e-3, atol=0
    )


def test_a_small_learning_rate_can_stay_in_the_worse_of_two_valleys() -> None:
    def valley(x: Tensor) -> Tensor:
        return (x**2 - 1) ** 2 + 0.3 * x

    weight = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)
    for _ in range(1000):
        optimizer.zero_grad()
        valley(weight).backward()
        optimizer.step()

    assert weight.item() == pytest.approx(0.96, abs=0.01)
    assert valley(weight) > valley(torch.tensor(-1.0))


def test_gradients_add_up_until_they_are_cleared() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight])
    (3 * weight).backward()
    (3 * weight).backward()
    assert weight.grad == torch.tensor([6.0])

    optimizer.zero_grad()

    assert weight.grad is None


def test_images_have_their_channels_first_and_same_padding_takes_no_stride() -> None:
    images = torch.zeros(5, 3, 24, 16)
    assert nn.Conv2d(3, 32, kernel_size=3, padding=1)(images).shape == (5, 32, 24, 16)
    with pytest.raises(
        ValueError, match="padding='same' is not supported for strided convolutions"
    ):
        nn.Conv2d(3, 32, kernel_size=3, stride=2, padding="same")


@pytest.mark.parametrize("size_px", [7, 8, 32])
def test_padding_1_with_stride_2_has_the_shape_of_kerass_same_and_looks_elsewhere(
    size_px: int,
) -> None:
    ramp = torch.arange(float(size_px)).repeat(size_px, 1)[None, None]
    centre = F.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1))
    before = (
        math.ceil(size_px / 2) * 2 + 1 - size_px
    ) // 2  # what TensorFlow's SAME pads before an edge
    after = (math.ceil(size_px / 2) * 2 + 1 - size_px) - before
    torchs = F.conv2d(ramp, centre, stride=2, padding=1)
    kerass = F.conv2d(F.pad(ramp, (before, after, before, after)), centre, stride=2)

    assert torchs.shape == kerass.shape
    assert torchs[0, 0, 0, 0] == 0
    assert kerass[0, 0, 0, 0] == (1 if size_px % 2 == 0 else 0)


def test_a_polynomial_activation_stays_a_polynomial_at_any_width() -> None:
    line = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    for width in (10, 10_000):
        hidden, output = nn.Linear(1, width).double(), nn.Linear(width, 1).double()
        assert output(hidden(line).square()).diff(n=3, dim=0).abs().max() < 1e-10
        assert output(hidden(line).relu()).diff(n=3, dim=0).abs().max() > 1e-4


def test_weights_before_a_batch_norm_grow_without_effect_and_their_gradients_shrink() -> None:
    torch.manual_seed(0)
    images, direction = torch.randn(16, 3, 8, 8).double(), torch.randn(16, 8, 6, 6).double()
    conv, norm = nn.Conv2d(3, 8, 3).double(), nn.BatchNorm2d(8, eps=1e-12).double()
    outputs = norm(conv(images))
    (gradient,) = torch.autograd.grad((outputs * direction).sum(), conv.weight)
    with torch.no_grad():
        conv.weight.mul_(100)
    grown = norm(conv(images))
    (grown_gradient,) = torch.autograd.grad((grown * direction).sum(), conv.weight)

    torch.testing.assert_close(grown, outputs)
    torch.testing.assert_close(grown_gradient * 100, gradient)


def test_batch_norm_alone_does_not_keep_gradients_from_exploding() -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(50)]
    net = nn.Sequential(*blocks, nn.Linear(64, 10))

    F.cross_entropy(net(torch.randn(256, 64)), torch.randint(10, (256,))).backward()

    first, last = blocks[0][0].weight.grad, blocks[-1][0].weight.grad
    assert first.norm() > 1000 * last.norm()


def test_dropout_scales_the_survivors_and_drops_single_positions() -> None:
    torch.manual_seed(0)
    images = torch.ones(200, 8, 6, 6)
    by_position, by_filter = nn.Dropout(0.25)(images), nn.Dropout2d(0.25)(images)

    assert by_position.mean().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(by_position.unique(), torch.tensor([0, 1 / 0.75]))
    assert (by_position.var(dim=(2, 3)) > 0).float().mean() > 0.99
    assert by_filter.var(dim=(2, 3)).max() < 1e-12
    torch.testing.assert_close(nn.Dropout(0.25).eval()(images), images)


def test_accuracy_counted_while_training_lags_behind_the_nets_at_the_epochs_end() -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(500, 20), torch.arange(500) % 10
    images[torch.arange(500), targets] += 5
    net = nn.Linear(20, 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    correct = 0
    for batch, labels in zip(images.split(50), targets.split(50), strict=True):
        logits = net(batch)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        correct += int((logits.argmax(1) == labels).sum())

    assert correct / 500 + 0.1 < (net(images).argmax(1) == targets).float().mean()


@pytest.mark.parametrize("accuracy", [0.4996, 0.7552])
def test_ten_thousand_test_images_leave_an_interval_of_about_one_point(accuracy: float) -> None:
    interval = wilson_interval(round(accuracy * 10_000), 10_000)
    assert interval.high - interval.low == pytest.approx(0.02, abs=0.004)


def test_data_hides_a_change_that_detach_reports() -> None:
    weight = torch.ones(2, requires_grad=True)
    outputs = weight.sigmoid()
    outputs.data.zero_()
    outputs.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 0]

    outputs = weight.sigmoid()
    outputs.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_a_batch_of_one_image_cannot_train_a_batch_norm() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        nn.BatchNorm1d(128)(torch.zeros(1, 128))


def test_leaky_relu_has_a_gradient_where_relu_has_none() -> None:
    negative = torch.tensor([-3.0, -0.5], requires_grad=True)
    (relu,) = torch.autograd.grad(F.relu(negative).sum(), negative)
    (leaky,) = torch.autograd.grad(F.leaky_relu(negative).sum(), negative)

    assert relu.tolist() == [0, 0]
    assert leaky.tolist() == pytest.approx([0.01, 0.01])


def test_conv2d_does_not_turn_its_filter_and_grows_with_contrast() -> None:
    patch, kernel = torch.randn(3, 3), torch.randn(3, 3)
    response = F.conv2d(patch[None, None], kernel[None, None]).item()

    assert response == pytest.approx((patch * kernel).sum().item(), abs=1e-5)
    assert F.conv2d(2 * patch[None, None], kernel[None, None]).item() == pytest.approx(
        2 * response, abs=1e-5
    )
