import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lamina.targets import SINGLE_LABEL
from lamina.training.model import Model
from lamina.training.optim import Muon, build_optimizer, orthogonalize
from lamina.training.prediction import find_head
from lamina.training.recipe import OPTIMIZERS, NamedOptimizer, Recipe, fit_recipe
from lamina.training.task import SingleLabel


def make_model(body):
    task = SingleLabel(("a", "b", "c", "d", "e"), shares=(0.2,) * 5)
    return Model(body, net=None, task=task, in_shape=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )


def build(net, recipe, precision="fp32"):
    return build_optimizer(make_model(net).train(), recipe, precision)


def train_by_hand(net, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 3, 8, 8, generator=generator)
    targets = torch.randint(0, 5, (32,), generator=generator)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_a_batch(name):
    net = small_net()
    lr = {"sgd": 0.05, "muon": 0.005}.get(name, 0.003)
    losses = train_by_hand(net, build(net, Recipe(optimizer=name, lr=lr)), steps=40)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", lambda weights: torch.optim.Adam(weights, lr=0.01, foreach=False, fused=False)),
        (
            "adamw",
            lambda weights: torch.optim.AdamW(
                weights, lr=0.01, weight_decay=0, foreach=False, fused=False
            ),
        ),
        ("rmsprop", lambda weights: torch.optim.RMSprop(weights, lr=0.01, foreach=False)),
        (
            "sgd",
            lambda weights: torch.optim.SGD(
                weights, lr=0.01, momentum=0.9, nesterov=True, foreach=False
            ),
        ),
    ],
)
def test_the_fast_forms_step_as_the_plain_ones(name, reference):
    fast, plain = small_net(), small_net()
    ours = train_by_hand(fast, build(fast, Recipe(optimizer=name, lr=0.01)), steps=10)
    assert ours == pytest.approx(
        train_by_hand(plain, reference(plain.parameters()), steps=10), rel=1e-3
    )


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_matrices_decay_and_vectors_do_not(name):
    net = small_net()
    optimizer = build(net, Recipe(optimizer=name, lr=0.1, weight_decay=0.5, momentum=0.0))
    before = [weight.detach().clone() for weight in net.parameters()]
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for weight, old in zip(net.parameters(), before, strict=True):
        expected = old * (1 - 0.1 * 0.5) if weight.ndim >= 2 else old
        assert torch.allclose(weight, expected, atol=1e-6)


def test_frozen_weights_are_left_out():
    net = small_net()
    net[0].weight.requires_grad_(False)
    trained = {id(w) for group in build(net, Recipe()).param_groups for w in group["params"]}
    assert id(net[0].weight) not in trained
    assert id(net[0].bias) in trained


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_newton_schulz_turns_as_the_decomposition_does(rows, columns, seed):
    matrix = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = orthogonalize(matrix)
    # U S' Vᵀ: the same singular vectors, each value near one unless it was tiny.
    inside = left.T @ turned @ right.T
    found = inside.diagonal()
    assert torch.allclose(inside, torch.diag(found), atol=1e-6)
    large = values > 0.01 * values[0] * min(rows, columns) ** 0.5
    assert ((found[large] > 0.6) & (found[large] < 1.25)).all()


def test_a_muon_step_has_the_length_of_an_adam_step():
    weight = nn.Parameter(torch.zeros(64, 32, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([{"params": [weight], "orthogonal": True}], lr=0.01).step()
    root_mean_square = weight.detach().square().mean().sqrt().item()
    assert root_mean_square == pytest.approx(0.2 * 0.01, rel=0.25)


def test_muons_momentum_is_nesterovs():
    weight = nn.Parameter(torch.zeros(6, 4))
    gradients = [
        torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)
    ]
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1, momentum=0.8)
    buffer, expected = torch.zeros(6, 4), torch.zeros(6, 4)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
        buffer = 0.8 * buffer + 0.2 * gradient
        expected -= 0.1 * 0.2 * 6**0.5 * orthogonalize(0.2 * gradient + 0.8 * buffer)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_muon_keeps_the_head_and_vectors_to_adam():
    net = small_net()
    groups = build(net, Recipe(optimizer="muon")).param_groups
    orthogonal = [weight for group in groups if group["orthogonal"] for weight in group["params"]]
    assert [id(weight) for weight in orthogonal] == [id(net[0].weight)]


class HeadFirst(nn.Module):
    """Declares its head before the layers below it; one weight is not in a module."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 5)
        self.conv = nn.Conv2d(3, 8, 3)
        self.hidden = nn.Parameter(torch.ones(16, 8) / 8)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x).mean((2, 3)) @ self.hidden.T))


def test_muon_finds_a_head_that_is_declared_first():
    net = HeadFirst()
    groups = build(net, Recipe(optimizer="muon")).param_groups
    orthogonal = {
        id(weight) for group in groups if group["orthogonal"] for weight in group["params"]
    }
    assert orthogonal == {id(net.conv.weight), id(net.hidden)}


class Scaled(nn.Module):
    """Ends in a scale for each class."""

    def __init__(self, outputs, classes_shape):
        super().__init__()
        self.hidden, self.head = nn.Linear(3, 6), nn.Linear(6, outputs)
        self.scale = nn.Parameter(torch.ones(classes_shape))

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.mean((2, 3))))) * self.scale


@pytest.mark.parametrize(("outputs", "classes_shape"), [(5, (1, 5)), (1, (1, 1))])
def test_a_scale_of_classes_is_no_head_and_a_multiplied_row_is(outputs, classes_shape):
    net = Scaled(outputs, classes_shape)
    assert find_head(make_model(net)) == "body.head"


@pytest.mark.parametrize(
    "last",
    [nn.Linear(3, 1), nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 1, 1), nn.Flatten())],
)
def test_a_head_with_one_output_is_found_above_a_wider_layer(last):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.ReLU(), last)
    model = make_model(net)
    assert model.get_submodule(find_head(model)).weight.shape[0] == 1


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (20, 300), (300, 20)])
def test_muon_in_bf16_steps_where_the_decomposition_points(shape):
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    Muon([{"params": [weight], "orthogonal": True}], lr=1.0, dtype=torch.bfloat16).step()
    left, _, right = torch.linalg.svd(weight.grad.flatten(1).double(), full_matrices=False)
    rows, columns = left.shape[0], right.shape[1]
    inside = (
        left.T
        @ (-weight.detach().flatten(1).double() / (0.2 * max(rows, columns) ** 0.5))
        @ right.T
    )
    assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.25)).all()
    assert (inside - torch.diag(inside.diagonal())).norm() < 0.05 * inside.norm()


def test_muon_multiplies_in_the_trainings_own_format():
    net = small_net()
    train_by_hand(net, build(net, Recipe(optimizer="muon", lr=0.01), "bf16"), steps=1)
    exact = small_net()
    train_by_hand(exact, build(exact, Recipe(optimizer="muon", lr=0.01)), steps=1)
    moved, expected = net[0].weight.detach(), exact[0].weight.detach()
    assert not torch.equal(moved, expected)
    assert torch.allclose(moved, expected, atol=0.01 * 0.1)


@pytest.mark.parametrize(
    ("name", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adam_with_decay_is_torchs(name, reference):
    fast, plain = small_net(), small_net()
    matrices = [weight for weight in plain.parameters() if weight.ndim > 1]
    vectors = [weight for weight in plain.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    ours = train_by_hand(
        fast, build(fast, Recipe(optimizer=name, lr=0.01, weight_decay=0.1)), steps=10
    )
    theirs = train_by_hand(plain, reference(groups, lr=0.01, foreach=False, fused=False), steps=10)
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_adam_leaves_weights_without_a_gradient_where_they_are():
    net = small_net()
    optimizer = build(net, Recipe(optimizer="adam"))
    before = [weight.detach().clone() for weight in net.parameters()]
    net[0].bias.grad = torch.ones_like(net[0].bias)
    optimizer.step()
    moved = [
        not torch.equal(weight, old) for weight, old in zip(net.parameters(), before, strict=True)
    ]
    assert moved == [False, True, False, False, False, False]
    optimizer.zero_grad()
    optimizer.step()
    assert all(weight.grad is None for weight in net.parameters())


def test_an_optimizer_of_torchs_is_one_entry_of_the_table(monkeypatch):
    monkeypatch.setitem(
        OPTIMIZERS, "rmsprop", NamedOptimizer("torch.optim.Adamax", 2e-3, {"foreach": True})
    )
    recipe = Recipe(optimizer="rmsprop", lr=2e-3)
    fitted = fit_recipe(recipe, 500, 32, SINGLE_LABEL)
    assert fitted.batch_size == 16
    assert fitted.lr == pytest.approx(2e-3 * (16 / 100) ** 0.5)
    ours, theirs = small_net(), small_net()
    losses = train_by_hand(ours, build(ours, recipe), 5)
    assert losses == pytest.approx(
        train_by_hand(theirs, torch.optim.Adamax(theirs.parameters(), lr=2e-3), 5), rel=1e-4
    )
