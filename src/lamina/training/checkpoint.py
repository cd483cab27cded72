"""Checkpoints, and the files with digests that store them.

Checkpoints contain no generator states, because randomness depends only on seed and step.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import LaminaWarning, RunError, name_some
from lamina.files import METADATA, blaming
from lamina.training.diagnosis import DoctorState
from lamina.training.schedule import Knot
from lamina.values import Range


def pack_tensors(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file with tensors, plain values and a digest of both."""
    written: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        contiguous = tensor.detach().cpu().contiguous()
        # safetensors rejects tensors that share memory, as tied weights do.
        if (place := contiguous.untyped_storage().data_ptr()) in places:
            contiguous = contiguous.clone()
        places.add(place)
        written[name] = contiguous
    text = json.dumps(values)
    # One entry, because safetensors writes several entries in an order that differs between
    # processes.
    metadata = {METADATA: json.dumps({"digest": _digest(written, text), "values": text})}
    return bytes(safetensors.torch.save(written, metadata))


def unpack_tensors(
    content: bytes, what: str, remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Unpack tensors, on the CPU, and values of :func:`pack_tensors`; ``RunError`` if damaged."""
    with blaming(what, remedy):
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
        # safetensors reads metadata only from files, and this file may have been replaced
        # meanwhile.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__")
        if metadata is None:
            return tensors, {}
        stored = json.loads(metadata[METADATA])
        text = str(stored.get("values"))
        if stored.get("digest") != _digest(tensors, text):
            raise ValueError("its digest does not match its content")
        values: dict[str, Any] = json.loads(text)
        return tensors, values


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, dtypes, shapes and exact values (BLAKE2b, 128 bits, hexadecimal)."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.blake2b(
        f"{digest_tensors(tensors)} {text}".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


Count: TypeAlias = Annotated[int, Range(0)]
Number: TypeAlias = bool | int | float | tuple[bool | int | float, ...]
REBUILT = (str, tuple, torch.dtype, type(None))
"""Types of optimizer values that a new optimizer sets again, so checkpoints omit them."""


@dataclass(frozen=True)
class Standing:
    """The progress of training between two steps, with the sums of the current epoch."""

    steps_done: Count
    steps_per_epoch: Annotated[int, Range(1)]
    images: Count
    loss: float
    correct: float | None  # number of correct predictions; `None` for regression
    seconds: float
    doctor: DoctorState = field(default_factory=DoctorState)
    # numbers from :func:`collect_numbers`
    optimizer: dict[str, dict[str, Number]] = field(default_factory=dict)
    knots: tuple[Knot, ...] = ()  # of the learning rate


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state that training needs to resume exactly."""

    tensors: dict[str, Tensor]
    """On the CPU: weights as ``live.…``, initial weights as ``initial.…``, optimizer state as
    ``optimizer.KEY.…``."""
    standing: Standing


def name_weights(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": tensor
        for kind, model in models.items()
        for name, tensor in model.state_dict().items()
    }


def name_tensors(models: Mapping[str, nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of models and of an optimizer over the first model, by name."""
    tensors = name_weights(models)
    for name, weight in _optimized(models, optimizer):
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{key}.{name}"] = value
    return tensors


def collect_numbers(
    models: Mapping[str, nn.Module], optimizer: Optimizer
) -> dict[str, dict[str, Any]]:
    """An optimizer's numbers by group index and weight name; warns about lost values."""
    holders: dict[str, dict[str, Any]] = {}
    for place, group in enumerate(optimizer.param_groups):
        holders[str(place)] = {**group, "weights": len(group["params"])}
        del holders[str(place)]["params"]
    for name, weight in _optimized(models, optimizer):
        state = optimizer.state.get(weight, {})
        holders[name] = {
            key: value for key, value in state.items() if not isinstance(value, Tensor)
        }
    numbers: dict[str, dict[str, Any]] = {}
    lost: set[str] = set()
    for holder, values in holders.items():
        for key, value in values.items():
            parts = value if isinstance(value, tuple) else (value,)
            if all(isinstance(part, int | float) for part in parts):
                numbers.setdefault(holder, {})[key] = value
            elif key != "lr" and not isinstance(value, REBUILT):
                lost.add(key)
    if lost:
        warnings.warn(
            f"{type(optimizer).__name__} has {name_some(sorted(lost))} in its state, which a"
            " checkpoint cannot store; the weights of a resumed run may differ. Store numbers, or"
            " tensors per weight",
            LaminaWarning,
            stacklevel=1,
        )
    return numbers


def restore_checkpoint(
    checkpoint: Checkpoint, models: Mapping[str, nn.Module], optimizer: Optimizer
) -> Standing:
    """Restore a checkpoint; raises ``RunError`` and changes nothing if it does not fit."""
    tensors = checkpoint.tensors
    numbers = {holder: dict(values) for holder, values in checkpoint.standing.optimizer.items()}
    for place, group in enumerate(optimizer.param_groups):
        stored = numbers.setdefault(str(place), {})
        now = {"weights": len(group["params"]), "initial_lr": group["initial_lr"]}
        for key, name in (("weights", "number of weights"), ("initial_lr", "learning rate")):
            before = stored.get(key, now[key])
            if before != now[key]:
                raise _misfit(
                    f"the {name} of optimizer group {place + 1} was {before:g} and is {now[key]:g}"
                )
        stored.pop("weights", None)
    expected = name_weights(models)
    for name, tensor in expected.items():
        if name not in tensors:
            raise _misfit(f"it lacks {name}")
        if tensors[name].shape != tensor.shape:
            shapes = (tuple(tensors[name].shape), tuple(tensor.shape))
            raise _misfit(f"{name} has shape {shapes[0]}, expected {shapes[1]}")
    optimized = dict(_optimized(models, optimizer))
    memory: dict[str, dict[str, Any]] = {}
    for name in optimized:
        memory[name] = {**numbers.get(name, {})}
    for name, tensor in tensors.items():
        if name in expected:
            continue
        kind, _, rest = name.partition(".")
        key, _, weight_name = rest.partition(".")
        if kind != "optimizer" or weight_name not in optimized:
            raise _misfit(f"it contains {name}, which the training does not have")
        weight = optimized[weight_name]
        state = tensor.clone()  # the optimizer counts its steps in it
        if state.shape == weight.shape:
            # Fused optimizers expect the memory layout of the weight.
            state = torch.empty_like(weight, dtype=state.dtype, requires_grad=False).copy_(state)
        memory[weight_name][key] = state

    for kind, model in models.items():
        names = model.state_dict()
        model.load_state_dict({name: tensors[f"{kind}.{name}"] for name in names})
    whole: dict[str, Any] = optimizer.state_dict()
    whole["state"] = {place: memory[name] for place, name in enumerate(optimized) if memory[name]}
    optimizer.load_state_dict(whole)
    for place, group in enumerate(optimizer.param_groups):
        group.update(numbers[str(place)])
    return checkpoint.standing


def _misfit(problem: str) -> RunError:
    return RunError(f"the checkpoint does not fit the training: {problem}")


def _optimized(
    models: Mapping[str, nn.Module], optimizer: Optimizer
) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of the first model in the order of the optimizer."""
    names = {weight: name for name, weight in next(iter(models.values())).named_parameters()}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            yield names[weight], weight
