import copy

import pytest
import torch
from torch import nn

from lamina import Net, Recipe, Training, load_data
from lamina.kernels.library import find_kernels
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Output, ReLU, Residual
from lamina.training.device import Choice
from lamina.training.model import build_model
from lamina.training.precision import choose_precision, multiplies_bf16, use_kernels
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
    assert choose_precision("bf16", model) == Choice("bf16", "as requested")
    assert choose_precision("fp32", model) == Choice("fp32", "as requested")


@pytest.mark.parametrize("supported", [False, True])
def test_the_processors_flag_decides(monkeypatch, images, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    choice = choose_precision("auto", build_model(load_net("cnn"), images, Recipe()))
    reason = "this CPU has bf16 arithmetic" if supported else "this CPU has no fast bf16 arithmetic"
    assert choice == Choice("bf16" if supported else "fp32", reason)


def test_torch_reports_the_processors_flag_and_mps_is_slow():
    assert isinstance(multiplies_bf16("cpu"), bool)
    assert not multiplies_bf16("mps")


@pytest.mark.parametrize("name", NAMES)
def test_with_bf16_arithmetic_every_net_of_the_zoo_uses_it(has_bf16, images, name):
    choice = choose_precision("auto", build_model(load_net(name), images.take(range(64)), Recipe()))
    assert choice == Choice("bf16", "this CPU has bf16 arithmetic")


TOO_SMALL = Choice("fp32", "the net is too small to gain from bf16")


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
    choice = Choice("bf16", "recorded")
    training = Training(NET, images, Recipe(epochs=1), precision=choice, steps_per_record=1)
    assert training.precision is choice
    seen = []
    training.model.body[4].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    next(iter(training))
    assert set(seen) == {torch.bfloat16}


def test_layers_multiply_in_bf16_in_training_only(images):
    training = Training(ROWS, images, Recipe(epochs=1, precision="bf16"), steps_per_record=1)
    assert training.model(sample(images)).dtype == torch.float32
    dtypes = []

    def compare(layer, arguments, output):
        weight = layer.weight.detach().bfloat16().double()
        products = arguments[0].detach().bfloat16().double() @ weight.T
        expected = products + layer.bias.detach().double()
        torch.testing.assert_close(output.detach().double(), expected, rtol=0.01, atol=0.01)
        dtypes.append(output.dtype)

    for place in (1, 3, 5):
        training.model.body[place].register_forward_hook(compare)
    next(iter(training))
    assert dtypes == [torch.bfloat16] * 3


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_a_model_by_kernels_shares_weights_and_hooks_with_the_model(monkeypatch, images, kernels):
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
    by_kernels = use_kernels(model, find_kernels())
    assert repr(model.body) == structure and list(model.state_dict()) == names
    assert {id(weight) for weight in by_kernels.parameters()} == {
        id(weight) for weight in model.parameters()
    }
    reference, pixels = copy.deepcopy(model), sample(images)
    for module in (by_kernels, reference):
        module(pixels).square().sum().backward()
    torch.testing.assert_close(
        dict(model.named_buffers()), dict(reference.named_buffers()), rtol=1e-5, atol=1e-6
    )
    for weight, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-3, atol=1e-3)
    seen = []
    for module in model.modules():  # also those that a kernel joins
        module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    by_kernels(pixels)
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
    [Choice("bf16", "recorded"), Choice("fp32", "recorded")],
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
