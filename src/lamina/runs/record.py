"""``run.json``: the net, the recipe, the data, the software and the machine of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lamina import __version__
from lamina.data import Dataset, Preparation
from lamina.errors import RunError
from lamina.files import damaged, parse_object, read_bytes, write_json
from lamina.nets import Net, Shape
from lamina.runs.machine import Machine, describe_machine, find_versions
from lamina.training.device import Choice
from lamina.training.loop import Training
from lamina.training.precision import Precision
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.values import fields_to_plain, from_plain

FORMAT = 1
"""Raised when ``run.json`` changes."""


@dataclass(frozen=True)
class OwnModule:
    """Where a user's own module comes from. It is for people: lamina runs no file because a run names it.

    Attributes:
        file: the file it was defined in; empty for a module that was given in Python.
        name: of the function or class.
    """

    file: str
    name: str

    def __str__(self) -> str:
        """How to give it again."""
        if not self.file:
            return f"train(module={self.name}(…))"
        return f"--net {self.file}:{self.name}" if self.name else f"--net {self.file}"


@dataclass(frozen=True)
class DataOrigin:
    """What a model was trained on.

    Attributes:
        source: the name or absolute path to load it from; empty for arrays in memory.
        name: of the data set.
        fingerprint: of its content.
        preparation: how the source is read.
    """

    source: str
    name: str
    fingerprint: str
    preparation: Preparation


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What ``run.json`` holds.

    Attributes:
        net_name: what the net is called in tables and in the run's name.
        net: its layers; ``None`` for a module.
        own_module: where a user's own module comes from; ``None`` for other nets.
        timm: which of timm's nets it is, and its first weights; ``None`` for other nets.
        recipe: how it is trained, including the seed.
        task: what its outputs mean.
        in_shape: channels, height and width of an image.
        mean: of each channel, in pixel values 0 to 255.
        std: standard deviation of each channel, in pixel values.
        parameters: how many the model has.
        data: what it is trained on.
        device: where it is trained, and why there.
        precision: the number format, why, and which layers stay in float32.
        rewind_on_nan: whether it goes back to its last checkpoint on NaN or infinity instead of ending.
        command: the words of the command line; empty in Python.
        created: when, by ISO 8601 in UTC.
        versions: of lamina, Python, torch and NumPy, and of timm where the net is timm's.
        machine: the hardware.
    """

    net_name: str
    net: Net | None
    own_module: OwnModule | None
    timm: TimmNet | None
    recipe: Recipe
    task: Task
    in_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parameters: int
    data: DataOrigin
    device: Choice
    precision: Precision
    rewind_on_nan: bool
    command: tuple[str, ...]
    created: str
    versions: dict[str, str]
    machine: Machine


def record_training(
    training: Training,
    dataset: Dataset,
    *,
    net_name: str,
    origin: OwnModule | TimmNet | None = None,
    rewind_on_nan: bool = False,
    command: Sequence[str] = (),
) -> RunRecord:
    """The record of a training that is about to begin, here and now.

    Args:
        training: what is recorded.
        dataset: what it trains on.
        net_name: what to call the net.
        origin: where a module comes from; ``None`` for a ``Net``.
        rewind_on_nan: whether it goes back to its last checkpoint on NaN or infinity.
        command: the words of the command line.
    """
    model = training.model
    timm = origin if isinstance(origin, TimmNet) else None
    return RunRecord(
        net_name=net_name,
        net=model.net,
        own_module=origin if isinstance(origin, OwnModule) else None,
        timm=timm,
        recipe=training.recipe,
        task=model.task,
        in_shape=tuple(model.in_shape),
        mean=model.mean,
        std=model.std,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=DataOrigin(dataset.source, dataset.name, dataset.fingerprint, dataset.preparation),
        device=training.device,
        precision=training.precision,
        rewind_on_nan=rewind_on_nan,
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=find_versions(with_timm=timm is not None),
        machine=describe_machine(),
    )


def write_record(folder: Path, record: RunRecord) -> None:
    """Write ``run.json``, atomically.

    Raises:
        OSError: it cannot be written; it is as before.
    """
    write_json(folder / "run.json", {"format": FORMAT, **fields_to_plain(record)})


def read_record(folder: Path) -> RunRecord:
    """Read ``run.json``.

    Raises:
        RunError: it is damaged, or of another format.
    """
    file = folder / "run.json"
    values = parse_object(read_bytes(file), str(file))
    written = values.pop("format", None)
    if type(written) is not int:
        raise damaged(str(file), f"its format should be an integer, but is {written!r}")
    if written != FORMAT:
        raise RunError(
            f"{file} has format {written}, but lamina {__version__} reads format {FORMAT}. "
            "Use the lamina that wrote it, or train again."
        )
    try:
        return from_plain(RunRecord, values, "run")
    except ValueError as error:
        raise damaged(str(file), error) from error
