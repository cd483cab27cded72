"""Checkpoints, and the files with digests that store them.

Checkpoints contain no generator states, because randomness depends only on seed and step.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import LaminaWarning, RunError, name_some
from lamina.files import METADATA, blaming
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
    start_loss: float | None = None  # of the first step
    start_norm: float = 0.0  # of all weight matrices before it
    optimizer: dict[str, Number] = field(default_factory=dict)  # named as its tensors
    knots: tuple[Knot, ...] = ()  # of the learning rate


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state that training needs to resume exactly: flattened state dicts."""

    tensors: dict[str, Tensor]
    """On the CPU: weights as ``live.NAME``, initial weights as ``initial.NAME``, and the optimizer
    state of each weight by its place in the optimizer, as ``optimizer.PLACE.KEY``."""
    standing: Standing


def name_tensors(models: Mapping[str, nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of models and of an optimizer, by name."""
    tensors = {
        f"{kind}.{name}": tensor
        for kind, model in models.items()
        for name, tensor in model.state_dict().items()
    }
    values = name_values(optimizer)
    return tensors | {name: value for name, value in values.items() if isinstance(value, Tensor)}


def collect_numbers(optimizer: Optimizer) -> dict[str, Any]:
    """The numbers of an optimizer, by name; warns about values that a checkpoint cannot store."""
    numbers = {}
    lost = set()
    for name, value in name_values(optimizer).items():
        parts = value if isinstance(value, tuple) else (value,)
        if all(isinstance(part, int | float) for part in parts):
            numbers[name] = value
        elif not isinstance(value, (Tensor, *REBUILT)):
            lost.add(name.rpartition(".")[2])
    if lost:
        warnings.warn(
            f"{type(optimizer).__name__} has {name_some(sorted(lost))} in its state, which a"
            " checkpoint cannot store; the weights of a resumed run may differ. Store numbers, or"
            " tensors per weight",
            LaminaWarning,
            stacklevel=1,
        )
    return numbers


def name_values(optimizer: Optimizer) -> dict[str, Any]:
    """All values: ``groups.PLACE.KEY``, and ``optimizer.PLACE.KEY`` in the order of the weights."""
    whole = optimizer.state_dict()
    values = {}
    for place, group in enumerate(whole["param_groups"]):
        for key, value in group.items():
            values[f"groups.{place}.{key}"] = tuple(value) if key == "params" else value
    for place, state in whole["state"].items():
        for key, value in state.items():
            values[f"optimizer.{place}.{key}"] = value
    return values


def restore_checkpoint(
    checkpoint: Checkpoint, models: Mapping[str, nn.Module], optimizer: Optimizer
) -> Standing:
    """Restore a checkpoint; raises ``RunError`` if it does not fit."""
    whole = optimizer.state_dict()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    stored: dict[str, dict[str, Any]] = {kind: {} for kind in models}
    state: dict[int, dict[str, Any]] = {}
    try:
        for name, value in (checkpoint.standing.optimizer | checkpoint.tensors).items():
            kind, _, rest = name.partition(".")
            if kind in stored:
                stored[kind][rest] = value
                continue
            place, _, key = rest.partition(".")
            if kind == "groups":
                whole["param_groups"][int(place)][key] = value
                continue
            if isinstance(value, Tensor):
                value = copy_state(value, weights[int(place)])
            state.setdefault(int(place), {})[key] = value
        for kind, model in models.items():
            model.load_state_dict(stored[kind])
        optimizer.load_state_dict(whole | {"state": state})
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        problem = " ".join(str(error).split()).removesuffix(".")
        raise RunError(f"the checkpoint does not fit the training: {problem}") from error
    return checkpoint.standing


def copy_state(state: Tensor, weight: Tensor) -> Tensor:
    """A copy that the optimizer can change, in the memory layout of the weight."""
    if state.shape != weight.shape:
        return state.clone()
    # fused optimizers expect this layout
    return torch.empty_like(weight, dtype=state.dtype, requires_grad=False).copy_(state)
