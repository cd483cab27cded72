"""The kernel, compared with torch's layers in float64, and the cases that it leaves to torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lamina.kernels.library import Kernels
from lamina.kernels.norm_act import NormAct, join_layers
from support.built_kernels import load
from support.examples import count_examples

# with the largest error, relative to the largest value
FORMATS = {torch.float32: 2e-6, torch.bfloat16: 8e-3}


def build(
    channels: int,
    activation: nn.Module | None = None,
    *,
    pools: bool = False,
    is_image: bool = True,
) -> list[nn.Module]:
    norm = (nn.BatchNorm2d if is_image else nn.BatchNorm1d)(channels, eps=1e-4, momentum=0.3)
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(channels, generator=generator))
        norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    return [*[nn.MaxPool2d(2)] * pools, norm, *([] if activation is None else [activation])]


def draw(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, shift: float = 0, seed: int = 0
) -> Tensor:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def run_module(module: nn.Module, x: Tensor, gradient: Tensor | None = None) -> dict[str, Tensor]:
    """Output, gradients and statistics of a module."""
    x = x.detach().requires_grad_()
    output = module(x)
    output.backward(torch.ones_like(output) if gradient is None else gradient.to(output.dtype))
    named = {
        name.removeprefix("layers."): weight.grad for name, weight in module.named_parameters()
    }
    buffers = {
        name.removeprefix("layers."): value.clone() for name, value in module.named_buffers()
    }
    return {
        "output": output.detach(),
        "input": x.grad,
        **{f"{name}.grad": value for name, value in named.items()},
        **buffers,
    }


def join(layers: Sequence[nn.Module], kernels: Kernels, *, training: bool = True) -> NormAct:
    return NormAct(copy.deepcopy(list(layers)), kernels).train(training)


def torchs(layers: Sequence[nn.Module], *, training: bool = True) -> nn.Sequential:
    return nn.Sequential(*copy.deepcopy(list(layers))).train(training)


ACTIVATIONS = st.sampled_from(
    [None, nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.0), nn.LeakyReLU(1.5)]
)


@settings(deadline=None, max_examples=count_examples(60))
@given(
    st.sampled_from([1, 3, 4, 8, 16, 17, 33, 64, 100]),
    st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9))
    | st.tuples(st.integers(8, 40)),
    ACTIVATIONS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, -3.0, 100.0]),
    st.sampled_from(list(FORMATS)),
)
def test_results_and_gradients_are_those_of_float64(
    channels: int,
    size: tuple[int, ...],
    activation: nn.Module | None,
    pools: bool,
    training: bool,
    shift: float,
    dtype: torch.dtype,
) -> None:
    images, *sides = size
    pools = pools and bool(sides)
    assume(images * math.prod(sides) >= 8)  # torch computes fewer
    # fewer numbers may have a tiny variance
    assume(images * math.prod(side // (1 + pools) for side in sides) >= 4)
    layers = build(channels, activation, pools=pools, is_image=bool(sides))
    x = draw((images, channels, *sides), dtype, shift)
    joined = join(layers, load(), training=training)
    reference = torchs(layers, training=training).double()
    before = reference[: len(layers) - (activation is not None)]
    z = copy.deepcopy(before)(x.double())
    # At the kink of an activation, rounding decides about the gradient.
    gradient = torch.where(
        z.abs() < 1e-3 * (1 + abs(shift)), 0, draw(tuple(z.shape), dtype, seed=1).double()
    )
    found, expected = run_module(joined, x, gradient), run_module(reference, x.double(), gradient)
    assert found["output"].dtype == dtype
    if sides:
        assert found["output"].is_contiguous(memory_format=torch.channels_last)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        is_bf16 = dtype == torch.bfloat16 and name in ("output", "input")
        tolerance = (
            FORMATS[torch.bfloat16] if is_bf16 else FORMATS[torch.float32] * (1 + abs(shift))
        )
        error = (found[name].double() - value).abs().max()
        assert error <= 4 * tolerance * (1 + value.abs().max()), name


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("pools", [False, True])
def test_threads_and_repetitions_give_the_same_bits(
    kernels: Kernels, dtype: torch.dtype, pools: bool
) -> None:
    layers, x = build(40, nn.LeakyReLU(), pools=pools), draw((20, 40, 33, 32), dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(run_module(join(layers, kernels), x))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(result[name], value) for name, value in results[0].items())


def test_sums_of_many_numbers_are_more_precise_than_torchs(kernels: Kernels) -> None:
    layers, x = build(16), draw((200, 16, 32, 32), shift=30.0)
    expected = run_module(torchs(layers).double(), x.double())["0.running_var"]
    errors = [
        (run_module(module, x)["0.running_var"] - expected).abs().max()
        for module in (join(layers, kernels), torchs(layers))
    ]
    assert errors[0] <= errors[1] and errors[0] < 1e-6


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.LeakyReLU()], ids=str)
@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_nan_stays_in_its_channel_and_infinity_is_that_of_torch(
    kernels: Kernels, activation: nn.Module | None, pools: bool, dtype: torch.dtype
) -> None:
    layers = build(20, activation, pools=pools)
    x = draw((3, 20, 4, 4), dtype)
    x[1, 4, 2, 3] = torch.nan
    x[0, 18, 1, 1] = torch.inf
    for training in (True, False):
        given = x.clone(memory_format=torch.preserve_format)
        if not training:
            given[:, 7] = -torch.inf  # ReLU makes it 0, also after a scale
        found = run_module(join(layers, kernels, training=training), given)
        expected = run_module(torchs(layers, training=training), given)
        for name in ("output", f"{int(pools)}.running_mean", f"{int(pools)}.running_var"):
            assert torch.equal(found[name].isnan(), expected[name].isnan()), name
            assert torch.equal(found[name].isinf(), expected[name].isinf()), name
        assert torch.equal(
            found["output"].isnan().any(dim=(0, 2, 3)).nonzero().flatten()[:1], torch.tensor([4])
        )


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_denormal_numbers_are_kept(kernels: Kernels, dtype: torch.dtype) -> None:
    layers = build(16, nn.LeakyReLU())
    with torch.no_grad():
        layers[0].bias.zero_()
        layers[0].running_mean.zero_()
    x = (draw((4, 16, 4, 4)) * 1e-39).to(dtype).contiguous(memory_format=torch.channels_last)
    found, expected = (
        run_module(join(layers, kernels, training=False), x),
        run_module(torchs(layers, training=False), x),
    )
    assert found["output"].count_nonzero() > 200
    torch.testing.assert_close(found["output"], expected["output"], rtol=0, atol=1e-40)


@pytest.mark.parametrize(
    "x",
    [
        draw((4, 16, 5, 5)).contiguous(),
        draw((4, 16, 5, 10))[..., ::2],
        draw((4, 16, 5, 5), torch.float64),
        draw((4, 16, 5, 5), torch.float16),
        torch.empty(0, 16, 5, 5).contiguous(memory_format=torch.channels_last),
        draw((2, 16, 1, 1)),
    ],
    ids=["channels first", "strided", "float64", "float16", "empty", "few"],
)
def test_other_tensors_are_left_to_torch(kernels: Kernels, x: Tensor) -> None:
    layers = [layer.to(x.dtype) for layer in build(16, nn.ReLU())]
    found, expected = run_module(join(layers, kernels), x), run_module(torchs(layers), x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def test_a_wrong_number_of_channels_is_torchs_error(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="running_mean should contain 8 elements not 16"):
        join(build(16), kernels)(draw((4, 8, 5, 5)))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        join(build(16, is_image=False), kernels)(draw((1, 16)))


def test_a_single_value_after_the_pool_is_torchs_error(kernels: Kernels) -> None:
    joined = join(build(16, nn.ReLU(), pools=True), kernels)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        joined(draw((1, 16, 3, 3)))
    assert joined(draw((1, 16, 3, 4))).isfinite().all()


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_hook_on_a_joined_layer_sees_its_tensors(
    kernels: Kernels, register: str, place: int
) -> None:
    joined, seen = join(build(16, nn.ReLU(), pools=True), kernels), []
    handle = getattr(joined.layers[place], register)(lambda *given: seen.append(given[1][0].shape))
    x = draw((4, 16, 6, 6)).requires_grad_()
    joined(x).sum().backward()
    assert len(seen) == 1
    handle.remove()
    joined(x).sum().backward()
    assert len(seen) == 1


def test_layers_that_the_kernel_does_not_compute_are_not_joined(kernels: Kernels) -> None:
    class Own(nn.BatchNorm2d):
        pass

    norm, pool, relu = nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU()
    others = [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        relu,
        Own(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.GELU(),
    ]
    for other in others:
        assert [type(layer) for _, layer in join_layers([other, norm, other], kernels)] == [
            type(other),
            NormAct,
            *([type(other)] if other is not relu else []),
        ]
    whole = dict(join_layers([pool, norm, relu, relu, norm, pool, relu, norm], kernels))
    assert {place: len(getattr(layer, "layers", "?")) for place, layer in whole.items()} == {
        0: 3,
        3: 1,
        4: 1,
        5: 1,
        6: 1,
        7: 1,
    }


def test_autograd_treats_it_as_one_operation(kernels: Kernels) -> None:
    layers = build(16, nn.LeakyReLU(), pools=True)
    joined, x = join(layers, kernels), draw((4, 16, 6, 6)).requires_grad_()
    output = joined(x)
    first, *_ = torch.autograd.grad(output.sum(), x, retain_graph=True)
    second, *_ = torch.autograd.grad(output.sum(), x, retain_graph=True)
    assert torch.equal(first, second)
    changed = joined(x)
    changed.sum().backward()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        gradient.sum().backward()
    plain = join(build(16), kernels)
    hidden = x * 1
    output = plain(hidden)
    with torch.no_grad():
        hidden.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    for weight in plain.parameters():
        weight.requires_grad_(False)
    plain(x).sum().backward()
    with torch.inference_mode():
        assert torch.equal(plain.eval()(x), plain(x.detach()))
