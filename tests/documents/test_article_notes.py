"""The statements of docs/explanation/article-notes.md about the article's own code."""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.evaluation.intervals import wilson_interval

ROOT = Path(__file__).parents[2]
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


@pytest.mark.nightly  # only a benchmark uses it
def test_an_instrumented_script_trains(article: str, benchmark: ModuleType, tmp_path: Path) -> None:
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
            benchmark.extract_script(article, "cnn"), image_set, seed=1, epochs=2
        ),
        encoding="utf-8",
    )

    row = benchmark.train_by_script(script, "cnn", seed=1, epochs=2)

    assert row.test_accuracy in [correct / 30 for correct in range(31)]
    assert 0 < row.epochs_seconds < row.printed_seconds <= row.process_seconds


def test_a_changed_article_is_refused(benchmark: ModuleType) -> None:
    message = "expected one code block with the training script in the article, found 0"
    with pytest.raises(ValueError, match=message):
        benchmark.extract_script("# Deep learning\n\n```python\nimport torch\n```\n", "mlp")


@pytest.mark.parametrize("accuracy", [0.4996, 0.7552])
def test_ten_thousand_images_leave_an_interval_of_a_point(accuracy: float) -> None:
    interval = wilson_interval(round(accuracy * 10_000), 10_000)
    assert interval.high - interval.low == pytest.approx(0.02, abs=0.004)
