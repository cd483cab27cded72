"""Numbers that go wrong: found before they reach the weights, and traced to the layer where they began."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.training.model import Model


def is_finite(loss: Float[Tensor, ""], model: nn.Module) -> bool:
    """Whether the loss and every gradient are numbers; on a GPU this waits for the steps that are under way.

    >>> is_finite(torch.tensor(float("nan")), nn.Linear(1, 1))
    False
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    # The largest of each, since the sum of squares of large but finite numbers overflows.
    largest = torch._foreach_norm(gradients, math.inf) if gradients else ()
    return all(torch.isfinite(torch.stack([loss.detach().float(), *(norm.float() for norm in largest)])).tolist())


def find_unsound(model: nn.Module) -> str | None:
    """The first weight or buffer of a model that is not all numbers, by its name; ``None`` where all are."""
    state = model.state_dict().items()
    return next((name for name, tensor in state if not torch.isfinite(tensor).all()), None)


def trace_not_finite(model: Model, take_step: Callable[[], Float[Tensor, ""]]) -> str:
    """Where the first value that is no number comes from, in words: weights, activations, the loss, or gradients.

    Args:
        model: the model, with the weights as they were before the step.
        take_step: makes the forward pass, and returns the loss; its gradients are computed here.
    """
    for name, weight in model.body.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weights of {_tell_layer(model, name.rpartition('.')[0])}"
    outputs: list[tuple[str, bool]] = []
    gradients: dict[int, bool] = {}

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        place = len(outputs)
        outputs.append((name, bool(torch.isfinite(output).all())))
        if output.requires_grad:
            output.register_hook(lambda gradient: gradients.__setitem__(place, bool(torch.isfinite(gradient).all())))

    innermost = [(name, module) for name, module in model.body.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(partial(note, name)) for name, module in innermost]
    try:
        loss = take_step()
        for name, finite in outputs:
            if not finite:
                return f"the activations of {_tell_layer(model, name)}"
        if not torch.isfinite(loss):
            return "the loss, though the net's outputs are numbers: look at the targets"
        model.zero_grad()
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    modules = dict(innermost)
    for place in reversed(range(len(outputs))):
        name = outputs[place][0]
        weights = [weight.grad for weight in modules[name].parameters() if weight.grad is not None]
        if not gradients.get(place, True) or not all(bool(torch.isfinite(grad).all()) for grad in weights):
            return f"the gradients of {_tell_layer(model, name)}"
    return "the gradients"


def _tell_layer(model: Model, name: str) -> str:
    """A layer by its place and its arguments; a module of a user's own by its name and class."""
    place, _, inside = name.partition(".")
    if model.net is not None and place.isdecimal():
        layer = f"layer {int(place) + 1} of {len(model.net)}, {model.net.layers[int(place)]}"
        return f"{layer} (in it: {type(model.body.get_submodule(name)).__name__})" if inside else layer
    return f"{name or 'the module'} ({type(model.body.get_submodule(name)).__name__})"
