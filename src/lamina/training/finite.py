"""Numbers that go wrong: found before anything is kept of them, and traced to the layer where they began."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.training.activations import describe_layer, watch
from lamina.training.model import Model


def choose_watched(model: nn.Module) -> tuple[Tensor, ...]:
    """The weights whose gradients tell of nearly all: of a linear layer or a convolution its bias alone, if it has one.

    The gradient of such a bias is a sum of all that reaches the layer from above, and so is no number as soon as a
    part of that is none; the weight's takes a hundred times as long to read. That one can overflow alone, where the
    layer's input is large: :func:`find_unsound` sees it in the weights after the step.
    """
    watched: list[Tensor] = []
    for module in model.modules():
        bias = module.bias if isinstance(module, nn.Linear | nn.Conv2d) else None
        watched += module.parameters(recurse=False) if bias is None or not bias.requires_grad else (bias,)
    return tuple(watched)


def is_finite(loss: Float[Tensor, ""], weights: Iterable[Tensor]) -> bool:
    """Whether the loss and the gradients of some weights are numbers; a GPU finishes its steps before it can tell.

    >>> is_finite(torch.tensor(float("nan")), ())
    False
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    # A sum is no number where any of its parts is none. That of finite parts can overflow: then all parts are read.
    vectors = [loss.detach().view(1), *(gradient.view(-1) for gradient in gradients if gradient.ndim < 2)]
    sums = [torch.cat(vectors).sum(), *(gradient.sum().float() for gradient in gradients if gradient.ndim > 1)]
    total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
    return math.isfinite(total.item()) or all(bool(torch.isfinite(value).all()) for value in (loss, *gradients))


def find_unsound(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that are not all finite numbers.

    >>> find_unsound({"weight": torch.ones(2), "bias": torch.tensor([0.0, float("inf")])})
    ['bias']
    """
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def trace_not_finite(model: Model, take_step: Callable[[], Float[Tensor, ""]]) -> str:
    """Where the first value that is no number comes from, in words: weights, activations, the loss, or gradients.

    Args:
        model: the model, with the weights as they were before the step.
        take_step: makes the forward pass, and returns the loss; its gradients are computed here.
    """
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weights of {describe_layer(model, name.rpartition('.')[0])}"
    outputs: list[tuple[str, bool]] = []
    gradients: dict[int, bool] = {}

    def note(path: str, _: Tensor, output: Tensor) -> None:
        index = len(outputs)
        outputs.append((path, bool(torch.isfinite(output).all())))
        if output.requires_grad:
            output.register_hook(lambda gradient: gradients.__setitem__(index, bool(torch.isfinite(gradient).all())))

    innermost = [path for path, module in model.body.named_modules(prefix="body") if not list(module.children())]
    with watch(model, innermost, note):
        loss = take_step()
        for path, is_finite_output in outputs:
            if not is_finite_output:
                return f"the activations of {describe_layer(model, path)}"
        if not torch.isfinite(loss):
            return "the loss, though the net's outputs are finite: check the targets"
        model.zero_grad()
        loss.backward()
    for index, (path, _) in reversed(list(enumerate(outputs))):
        weights = [weight.grad for weight in model.get_submodule(path).parameters() if weight.grad is not None]
        if not gradients.get(index, True) or not all(bool(torch.isfinite(grad).all()) for grad in weights):
            return f"the gradients of {describe_layer(model, path)}"
    return "the gradients"
