"""Outputs of a model's layers. The only module that registers hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.errors import NetError, suggest
from lamina.training.model import Model, check_input, eval_mode
from lamina.training.randomness import seeded
from lamina.training.task import Pixels, PixelTensor

Place = TypeVar("Place", int, str)
NO_TENSOR = (
    "Layer {!r} has no output tensor, because forward does not call it or it returns a tuple."
    " Choose another layer."
)


class Call(NamedTuple):
    """A module's input and output in one forward pass."""

    input: Tensor
    output: Tensor


def activations(
    model: Model,
    images: PixelTensor | Pixels,
    layers: Iterable[Place],
) -> dict[Place, Float[Tensor, "n ..."]]:
    """The outputs of layers for a batch of images, with the model in eval mode.

    Args:
        model: A trained or new model.
        images: Pixels, uint8 (N, H, W, C).
        layers: Layers by number, from 1 as in :func:`summarize` (-1 is the last), or by module
            path, such as ``"body.0"`` for layer 1.

    Returns:
        The output of each layer. If a module is called several times, it is the output of the last
        call.

    Raises:
        NetError: A layer does not exist or returns no tensor, or the images do not have the model's
            shape.
        DataError: The images are not uint8 pixels (N, H, W, C).

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> images = load_data("shapes").test
    >>> model = build_model(load_net("mlp"), images, Recipe())
    >>> {
    ...     layer: output.shape
    ...     for layer, output in activations(model, images.pixels[:5], [1, -1]).items()
    ... }
    {1: torch.Size([5, 3072]), -1: torch.Size([5, 10])}
    """
    pixels = check_input(model, images)
    paths = find_paths(model, layers)
    calls = record_calls(model, torch.from_numpy(np.ascontiguousarray(pixels)), paths.values())
    for layer, path in paths.items():
        if path not in calls:
            raise NetError(NO_TENSOR.format(layer))
    return {layer: calls[path].output for layer, path in paths.items()}


def module_paths(model: Model) -> tuple[str, ...]:
    """The module path of each layer of the net, such as ``body.0``; empty for a custom module."""
    return () if model.net is None else tuple(f"body.{index}" for index in range(len(model.net)))


def innermost_paths(model: Model) -> list[str]:
    return [
        path
        for path, module in model.body.named_modules(prefix="body")
        if not list(module.children())
    ]


def learned_modules(model: Model) -> list[nn.Module]:
    """The modules with parameters in call order, after modules that are never called."""
    paths = [
        path for path, module in model.named_modules() if list(module.parameters(recurse=False))
    ]
    called = call_order(model, paths)
    uncalled = [path for path in paths if path not in called]
    return [model.get_submodule(path) for path in (*uncalled, *called)]


def call_order(model: Model, paths: Iterable[str]) -> dict[str, torch.Size]:
    """The modules at ``paths`` by first call, with the shape of their last output."""
    calls = record_calls(model, black_images(model, 1), paths)
    return {path: call.output.shape[1:] for path, call in calls.items()}


def black_images(model: Model, count: int) -> PixelTensor:
    channels, *size = model.in_shape
    return torch.zeros(count, *size, channels, dtype=torch.uint8, device=model.device)


def find_paths(model: Model, layers: Iterable[Any]) -> dict[Any, str]:
    """The module path of each layer; raises ``NetError`` if ``layers`` is not a list."""
    if isinstance(layers, int | str) or not isinstance(layers, Iterable):
        raise NetError(f"layers must be a list, such as [1, -1], got {layers!r:.60}.")
    return {layer: find_path(model, layer) for layer in layers}


def find_path(model: Model, layer: int | str) -> str:
    """The module path of a layer, by its number (from 1, or from -1 backwards) or its path."""
    if isinstance(layer, str):
        known = [name for name, _ in model.named_modules() if name]
        if layer not in known:
            raise NetError(f"The model has no module {layer!r}. {suggest(layer, known)}")
        return layer
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise NetError(
            f"A layer must be a number or a module path, got {layer!r:.60}. Use 1 or 'body.0' for"
            " the first."
        )
    paths = module_paths(model)
    if not 1 <= abs(layer) <= len(paths):
        if paths:
            raise NetError(f"There is no layer {layer}; the net has layers 1 to {len(paths)}.")
        raise NetError(
            f"There is no layer {layer}, because layers of your own module have no numbers. Pass a"
            " module path, such as 'body.conv1'."
        )
    return paths[layer - 1 if layer > 0 else layer]


def name_layer(model: Model, path: str) -> str:
    """The number (from 1) and class of a layer, or the path and class in a custom module."""
    kind = type(model.get_submodule(path)).__name__
    _, _, name = path.partition(".")
    place, dot, inside = name.partition(".")
    if model.net is None or not place.isdecimal():
        return f"{name or 'module'} {kind}"
    if not inside:
        kind = type(model.net[int(place)]).__name__
    return f"{int(place) + 1}{dot}{inside} {kind}"


@torch.no_grad()
def record_calls(model: Model, images: PixelTensor, paths: Iterable[str]) -> dict[str, Call]:
    """The inputs and outputs of the modules at ``paths`` that accept and return tensors."""
    calls: dict[str, Call] = {}

    def note(path: str, entering: Tensor, output: Tensor) -> None:
        # copies, because a later layer may work in place
        calls[path] = Call(entering.clone(), output.clone())

    with eval_mode(model), seeded(0, model.device), watch(model, paths, note):
        model(images.to(model.device))
    return calls


@contextmanager
def watch(
    model: nn.Module, paths: Iterable[str], see: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call ``see(path, input, output)`` after each module."""

    def note(
        path: str,
        _: nn.Module,
        arguments: tuple[object, ...],
        named: dict[str, object],
        output: object,
    ) -> None:
        first = next(iter((*arguments, *named.values())), None)
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            see(path, first, output)

    hooks = [
        model.get_submodule(path).register_forward_hook(partial(note, path), with_kwargs=True)
        for path in dict.fromkeys(paths)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
