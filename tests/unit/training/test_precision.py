import copy

import pytest
import torch
from torch import nn

from lamina import Net, Recipe, Training, load_data
from lamina.kernels.library import Kernels, find_kernels
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Output, ReLU, Residual
from lamina.nets.modules import OneDnnLinear
from lamina.training.model import build_model
from lamina.training.precision import (
    Precision,
    choose_precision,
    multiplies_bf16,
    prepare,
    uses_autocast,
)
from lamina.zoo import NAMES, load_net

NET = Net(
    Conv2d(8, 3), BatchNorm(), ReLU(), MaxPool2d(4), Conv2d(16, 3), ReLU(), Flatten(), Output()
)
ROWS = Net(Flatten(), Linear(100), ReLU(), Linear(20), ReLU(), Output())


@pytest.fixture(scope="module")
def images():
    return load_data("shapes").train


@pytest.fixture
def model(images):
    torch.manual_seed(0)
    return build_model(NET, images, Recipe())


@pytest.fixture
def has_bf16(monkeypatch):
    """A processor with bf16 arithmetic; the choice asks only torch's flag."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


def sample(images, count=16):
    return torch.from_numpy(images.pixels[:count].copy())


def test_the_requested_format_is_used(model):
    assert choose_precision("bf16", model) == Precision("bf16", "as requested")
    assert choose_precision("fp32", model) == Precision("fp32", "as requested")


@pytest.mark.parametrize("supported", [False, True])
def test_the_processors_flag_decides(monkeypatch, images, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    choice = choose_precision("auto", build_model(load_net("cnn"), images, Recipe()))
    reason = "this CPU has bf16 arithmetic" if supported else "this CPU has no fast bf16 arithmetic"
    assert choice == Precision("bf16" if supported else "fp32", reason)


def test_torch_reports_the_processors_flag_and_mps_is_slow():
    assert isinstance(multiplies_bf16("cpu"), bool)
    assert not multiplies_bf16("mps")


@pytest.mark.parametrize("name", NAMES)
def test_with_bf16_arithmetic_every_net_of_the_zoo_uses_it(has_bf16, images, name):
    small = {"mlp": ("body.3",), "mlp-l": ("body.10",)}.get(name, ())
    choice = choose_precision("auto", build_model(load_net(name), images.take(range(64)), Recipe()))
    kept = f"; fp32 for small layers: {', '.join(small)}" if small else ""
    assert choice == Precision("bf16", f"this CPU has bf16 arithmetic{kept}", small)


TOO_SMALL = Precision("fp32", "the net is too small to gain from bf16")


@pytest.mark.parametrize(
    "net", [NET, Net(Flatten(), Linear(20), ReLU(), Output())], ids=["convolutions", "linear"]
)
def test_a_small_net_stays_in_float32(has_bf16, images, net):
    assert choose_precision("auto", build_model(net, images, Recipe())) == TOO_SMALL


@pytest.mark.parametrize(("channels", "expected"), [(30, "fp32"), (60, "bf16")])
def test_a_module_of_ones_own_is_measured_by_its_multiply_adds(
    has_bf16, images, channels, expected
):
    body = nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(channels * 900, 10)
    )
    own = build_model(body, images, Recipe()).train()
    before, generator = copy.deepcopy(own.state_dict()), torch.get_rng_state()
    # 30 channels: 27 × 900 × 30 + 30 × 900 × 10 = 999,000.
    assert choose_precision("auto", own).value == expected
    assert all(torch.equal(before[name], tensor) for name, tensor in own.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert own.training


def test_a_training_uses_the_recorded_choice(images):
    choice = Precision("bf16", "recorded")
    training = Training(NET, images, Recipe(epochs=1), precision=choice, steps_per_record=1)
    assert training.precision is choice
    seen = []
    training.model.body[4].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    next(iter(training))
    assert set(seen) == {torch.bfloat16}


def test_linear_layers_multiply_in_bf16_in_training_only(images):
    model, choice = (
        build_model(ROWS, images, Recipe()),
        Precision("bf16", "recorded", ("body.3", "body.5")),
    )
    before, pixels = model(sample(images)), sample(images)
    twin = prepare(model, choice)
    assert not uses_autocast(model, choice)
    assert torch.equal(model(pixels), before)
    kinds = [type(module).__name__ for module in twin.body if isinstance(module, nn.Linear)]
    assert kinds == ["Bfloat16Linear", "Linear", "Linear"]
    rounded, exact = twin.body[:2](twin.normalize(pixels)), model.body[:2](model.normalize(pixels))
    assert rounded.dtype == torch.float32
    weight, inputs = model.body[1].weight, model.normalize(pixels).flatten(1)
    by_hand = (
        inputs.bfloat16().double() @ weight.bfloat16().double().T + model.body[1].bias.double()
    )
    torch.testing.assert_close(rounded.double(), by_hand, rtol=0.005, atol=0.005)
    assert 1e-5 < (rounded - exact).norm() / exact.norm() < 0.01


def test_requested_bf16_is_used_in_every_layer(images):
    model = build_model(ROWS, images, Recipe())
    twin = prepare(model, choose_precision("bf16", model))
    assert {type(module).__name__ for module in twin.body if isinstance(module, nn.Linear)} == {
        "Bfloat16Linear"
    }


def find_kinds(twin):
    return [type(module).__name__ for module in twin.body if isinstance(module, nn.Linear)]


def test_only_avx512_multiplies_large_layers_by_onednn(monkeypatch, images):
    model = build_model(ROWS, images, Recipe())
    choice = Precision("fp32", "as requested")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert find_kinds(prepare(model, choice)) == ["OneDnnLinear", "Linear", "Linear"]
    assert find_kinds(prepare(model.double(), choice)) == ["Linear"] * 3
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert find_kinds(prepare(model.float(), choice)) == ["Linear"] * 3


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("has_bias", [True, False])
def test_onednn_computes_a_linear_layer_and_its_gradients(rows, has_bias):
    torch.manual_seed(rows)
    layer = nn.Linear(300, 40, bias=has_bias)
    exact = copy.deepcopy(layer).double()
    layer.__class__ = OneDnnLinear
    x = torch.randn(rows, 300)
    gradient = torch.randn(rows, 40)
    results = compute_with_gradients(layer, x, gradient)
    expected = compute_with_gradients(exact, x.double(), gradient.double())
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), value, rtol=1e-5, atol=2e-5)


def compute_with_gradients(layer, x, gradient):
    x.requires_grad_()
    output = layer(x)
    return output, *torch.autograd.grad(output, [x, *layer.parameters()], gradient)


def test_onednn_leaves_frozen_weights_without_gradients():
    layer = nn.Linear(300, 40).requires_grad_(False)
    layer.__class__ = OneDnnLinear
    x = torch.ones(2, 300, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 300))


def test_a_net_with_convolutions_is_trained_within_autocast(model):
    assert uses_autocast(model, Precision("bf16", "as requested"))
    assert not uses_autocast(model, Precision("fp32", "as requested"))


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_the_twin_shares_weights_and_hooks_with_the_model(monkeypatch, images, kernels):
    monkeypatch.setenv("LAMINA_KERNELS", kernels)
    net = Net(
        Conv2d(4, 3),
        MaxPool2d(2),
        BatchNorm(),
        ReLU(),
        Residual(Conv2d(4, 1), BatchNorm()),
        Flatten(),
        Output(),
    )
    model = build_model(net, images, Recipe()).train()
    structure, names = repr(model.body), list(model.state_dict())
    found = find_kernels()
    twin = prepare(
        model, Precision("fp32", "as requested"), found if isinstance(found, Kernels) else None
    )
    assert repr(model.body) == structure and list(model.state_dict()) == names
    assert {id(weight) for weight in twin.parameters()} == {
        id(weight) for weight in model.parameters()
    }
    reference, pixels = copy.deepcopy(model), sample(images)
    for module in (twin, reference):
        module(pixels).square().sum().backward()
    torch.testing.assert_close(
        dict(model.named_buffers()), dict(reference.named_buffers()), rtol=1e-5, atol=1e-6
    )
    for weight, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-3, atol=1e-3)
    seen = []
    for module in model.modules():  # also those that a kernel joins
        module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    twin(pixels)
    assert {
        "Model",
        "Sequential",
        "Conv2d",
        "MaxPool2d",
        "BatchNorm2d",
        "ReLU",
        "ResidualSum",
        "Linear",
    } <= set(seen)


@pytest.mark.parametrize(
    "choice",
    [Precision("bf16", "recorded", ("body.3", "body.5")), Precision("fp32", "recorded")],
    ids=str,
)
def test_training_resumes_to_bit_identical_weights(images, choice):
    few = images.take(range(64))
    recipe = Recipe(epochs=3, batch_size=16, optimizer="muon", lr=0.02)

    def start():
        return Training(ROWS, few, recipe, precision=choice, steps_per_record=1)

    whole, again, stopped, resumed = start(), start(), start(), start()
    list(whole), list(again)
    for _ in zip(range(5), stopped, strict=False):
        pass
    resumed.restore(stopped.checkpoint())
    list(resumed)
    expected = whole.model.state_dict()
    for training in (again, resumed):
        assert all(
            torch.equal(expected[name], tensor)
            for name, tensor in training.model.state_dict().items()
        )
