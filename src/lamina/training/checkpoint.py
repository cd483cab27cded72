"""Everything that an exact continuation needs; no generator's state, as randomness follows from seed and step alone."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import LaminaWarning, RunError, name_some
from lamina.training.tensors import digest_tensors

KEPT = int | float | str | None  # plain values of an optimizer, of which numbers are stored


@dataclass(frozen=True)
class Standing:
    """The progress of a training between two steps, and the sums of the current epoch so far."""

    steps_done: int
    rewinds: int  # how often the training went back to a checkpoint, halving the learning rate each time
    images: int
    loss: float
    correct: float | None  # correct predictions; `None` for regression
    seconds: float
    doctor: dict[str, Any] = field(default_factory=dict)  # what the doctor remembers, as plain values
    optimizer: dict[str, Any] = field(default_factory=dict)  # what :func:`collect_numbers` finds


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that an exact continuation of a training needs."""

    tensors: dict[str, Tensor]
    """On the CPU, by name: ``live.…`` the weights, ``averaged.…`` their moving average, ``optimizer.KEY.…`` the
    optimizer's state of each weight."""
    standing: Standing


def name_tensors(models: Mapping[str, nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of models, and of an optimizer over the first of them, by name."""
    found = {f"{kind}.{name}": tensor for kind, model in models.items() for name, tensor in model.state_dict().items()}
    for name, weight in _optimized(models, optimizer):
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                found[f"optimizer.{key}.{name}"] = value
    return found


def digest_state(models: Mapping[str, nn.Module], optimizer: Optimizer) -> str:
    """A digest of all weights and of the optimizer's state."""
    return digest_tensors(name_tensors(models, optimizer))


def collect_numbers(models: Mapping[str, nn.Module], optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """The numbers of an optimizer's groups, by their place, and of weights, by their name; warns of what is lost."""
    groups: dict[str, Mapping[str, Any]] = {str(place): group for place, group in enumerate(optimizer.param_groups)}
    states = {name: optimizer.state.get(weight, {}) for name, weight in _optimized(models, optimizer)}
    lost = {key for state in states.values() for key, value in state.items() if not isinstance(value, Tensor | KEPT)}
    for group in groups.values():
        made_again = (int, float, str, tuple, torch.dtype, type(None))
        lost |= {key for key, value in group.items() if not isinstance(value, made_again)} - {"params", "lr"}
    if lost:
        warnings.warn(
            f"{type(optimizer).__name__} keeps {name_some(sorted(lost))}, which a checkpoint cannot hold: the weights "
            "of a resumed training may differ. Keep tensors for each weight, or numbers",
            LaminaWarning,
            stacklevel=1,
        )
    found: dict[str, dict[str, Any]] = {}
    for holder, values in (groups | states).items():
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        found[holder] = numbers | {key: list(value) for key, value in values.items() if _are_numbers(value)}
    for place, group in groups.items():
        found[place]["weights"] = len(group["params"])
    return {holder: values for holder, values in found.items() if values}


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(part, int | float) for part in value)


def make_checkpoint(models: Mapping[str, nn.Module], optimizer: Optimizer, standing: Standing) -> Checkpoint:
    """Copies of what :func:`name_tensors` finds, and of the optimizer's plain numbers."""
    named = name_tensors(models, optimizer)
    tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
    return Checkpoint(tensors, dataclasses.replace(standing, optimizer=collect_numbers(models, optimizer)))


def restore_checkpoint(checkpoint: Checkpoint, models: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
    """Restore what :func:`make_checkpoint` copied; ``RunError``, and no change, if it does not fit."""
    tensors, numbers = checkpoint.tensors, checkpoint.standing.optimizer
    states = {kind: model.state_dict() for kind, model in models.items()}
    expected = {f"{kind}.{name}": tensor for kind, state in states.items() for name, tensor in state.items()}
    weights = dict(_optimized(models, optimizer))
    for place, group in enumerate(optimizer.param_groups):
        kept = numbers.get(str(place), {})
        for key, now in (("weights", len(group["params"])), ("initial_lr", group["initial_lr"])):
            if kept.get(key, now) != now:
                what = {"weights": "a number of weights", "initial_lr": "a learning rate"}[key]
                raise RunError(
                    f"the checkpoint does not fit the training: group {place + 1} of the optimizer had {what} of "
                    f"{kept[key]:g}, and has {now:g}"
                )
    memory: dict[str, dict[str, Any]] = {name: dict(numbers.get(name, {})) for name in weights}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        key, _, weight_name = rest.partition(".")
        if kind == "optimizer" and weight_name in weights:
            weight = weights[weight_name]
            kept = tensor.clone()  # the optimizer counts its steps in it
            if tensor.shape == weight.shape:
                # In the memory layout of its weight: fused optimizers pair the two by their position in memory.
                kept = torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
            memory[weight_name][key] = kept
        elif name not in expected:
            raise RunError(f"the checkpoint does not fit the training: it has {name}, which the training does not")
    for name, tensor in expected.items():
        if name not in tensors:
            raise RunError(f"the checkpoint does not fit the training: it lacks {name}")
        _check_shape(name, tensors[name], tensor)

    for kind, model in models.items():
        model.load_state_dict({name: tensors[f"{kind}.{name}"] for name in states[kind]})
    whole: dict[str, Any] = optimizer.state_dict()
    whole["state"] = {place: memory[name] for place, name in enumerate(weights) if memory[name]}
    optimizer.load_state_dict(whole)
    for place, group in enumerate(optimizer.param_groups):
        kept = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in numbers.get(str(place), {}).items()
        }
        group.update({key: value for key, value in kept.items() if key != "weights"})


def _optimized(models: Mapping[str, nn.Module], optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The weights of the first model in the order in which the optimizer numbers them."""
    names = {weight: name for name, weight in next(iter(models.values())).named_parameters()}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            yield names[weight], weight


def _check_shape(name: str, tensor: Tensor, expected: Tensor) -> None:
    found, wanted = tuple(tensor.shape), tuple(expected.shape)
    if found != wanted:
        raise RunError(f"the checkpoint does not fit the training: for {name} expected the shape {wanted}, got {found}")
