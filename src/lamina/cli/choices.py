"""What NET, DATA and RUN on the command line stand for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina import zoo
from lamina.cli.own_file import call_net, find_net
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.errors import DataError, LaminaWarning, NetError, suggest
from lamina.nets import Net, Shape, parse_net
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset, Images, Preparation
    from lamina.runs.record import OwnModule
    from lamina.runs.run import Run
    from lamina.training.model import Model
    from lamina.training.pretrained import TimmNet

TIMM = "timm:"
"""How the names of timm's nets begin."""


@dataclass(frozen=True)
class NetChoice:
    """The net that a person named.

    Attributes:
        name: in tables and in the run's name.
        net: the value, or a function from the shape of an image and a number of outputs to a module.
        recipes: how to train it, the default first.
        origin: where a module comes from: the user's file, or timm's net and its initial weights.
    """

    name: str
    net: Net | Callable[[Shape, int], nn.Module]
    recipes: dict[str, Recipe]
    origin: OwnModule | TimmNet | None = None

    def make_for(self, images: Images, seed: int) -> Net | nn.Module:
        """The net, or a module that fits these images, with weights drawn from ``seed``."""
        from lamina.training.task import task_of

        return self.make(seed, images.shape, task_of(images).outputs)

    def make(self, seed: int, shape: Shape, outputs: int) -> Net | nn.Module:
        """The net, or a module for images of that shape and that many logits, with weights drawn from ``seed``."""
        if isinstance(self.net, Net):
            return self.net
        import torch

        from lamina.training.randomness import derive_seed, seeded

        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            return self.net(shape, outputs)


def choose_net(text: str, terminal: Terminal, weights: str | None = None) -> NetChoice:
    """The net that ``text`` names: one of the zoo, ``timm:NAME``, ``file.py``, ``file.py:NAME``, or layers as Python.

    Args:
        text: what was typed.
        terminal: where to say what is downloaded or run.
        weights: initial weights of timm's net: ``none``, ``pretrained`` (the default) or a safetensors file.

    Raises:
        NetError: it names no net, or the weights are not available.
    """
    if text.startswith(TIMM):
        return _choose_timm(text, weights, terminal)
    if weights is not None:
        raise NetError(f"--weights was {weights!r}, but only timm:NAME takes weights. Leave it out.")
    if text in zoo.NAMES:
        return NetChoice(text, zoo.load_net(text), zoo.load_recipes(text))
    if file := re.fullmatch(r"(.+\.py)(?::(\w+))?", text):
        return _choose_own(Path(file[1]), file[2] or "", terminal)
    if "(" not in text:
        raise NetError(
            f"There is no net {text!r} in the zoo. {suggest(text, zoo.NAMES)} "
            'Or give layers, as in "Flatten(), Linear(200), ReLU(), Output()", or a file.py.'
        )
    return NetChoice("net", parse_net(text), {"default": Recipe()})


def choose_data(source: str | None, preparation: Preparation, terminal: Terminal) -> Dataset:
    """The data set of that name or path; by default CIFAR-10 where it is available, else the built-in shapes."""
    from lamina.data import NAMES, find_default_data, load_data

    reason = "as requested"
    with _preparing(terminal) as progress:
        if source is None:
            source, reason = find_default_data()
        dataset = load_data(source, preparation, progress=progress)
    _print_dataset(dataset, reason, terminal)
    if source not in NAMES:
        terminal.remark(f"targets: {dataset.target_reason}")
    if preparation.size_px is None and dataset.size_px is not None:
        terminal.remark(
            f"size: {dataset.size_px} px squares by {dataset.resize} "
            "(pictures differ in size, or are over 256 px; --size sets another)"
        )
    return dataset


def choose_run_data(run: Run, source: str | None, terminal: Terminal) -> Dataset:
    """The data set of a run, from where it was or from its new place, ``source``.

    Raises:
        DataError: it has moved, or cannot be read.
    """
    from lamina.runs.resume import check_source

    if source is None:
        check_source(run)
    return choose_data(source or run.record.data.source, run.record.data.preparation, terminal)


def is_moved_to(run: Run, source: str) -> bool:
    """Whether a run's data set has moved to ``source``."""
    from lamina.data import NAMES, load_data

    own = run.record.data
    if own.source in NAMES or Path(own.source).exists():
        return False
    try:
        with warnings.catch_warnings(action="ignore", category=LaminaWarning):
            return load_data(source, own.preparation).fingerprint == own.fingerprint
    except DataError:
        return False


def choose_other_data(
    source: str, preparation: Preparation, target_names: tuple[str, ...], terminal: Terminal
) -> Dataset:
    """The data set of that name or path, to evaluate a model with these targets that was trained on other data."""
    from lamina.data import load_to_evaluate

    with _preparing(terminal) as progress:
        dataset = load_to_evaluate(source, preparation, target_names, progress=progress)
    _print_dataset(dataset, "as requested", terminal)
    return dataset


def load_run_model(run: Run, net: str | None, device: str, terminal: Terminal) -> Model:
    """A run's model on a device; ``net`` is the file of a user's own module, which a run does not hold.

    Raises:
        LaminaError: the run's model is damaged, or does not fit ``net``.
    """
    from lamina.training.device import choose_device

    body = make_module(run, net, terminal)
    place = choose_device(device)
    terminal.remark(f"device: {place}")
    return run.load_model(body).to(place.value)


def print_pretrained(model: Model, terminal: Terminal) -> None:
    """Print the normalization of timm's nets, and whether the pictures are far smaller than those they learned from."""
    from lamina.training.pretrained import native_side_px

    native_px, side_px = native_side_px(model.body), min(model.in_shape[1:])
    if native_px is None:
        return
    mean, std = (", ".join(f"{value:.1f}" for value in values) for values in (model.mean, model.std))
    terminal.remark(f"normalization: the net's own, mean {mean}, deviation {std}")
    if 2 * side_px <= native_px:
        terminal.remark(
            f"size: the pictures are {side_px} px, and the net was made for {native_px} px: a larger --size, "
            f"{min(native_px, 4 * side_px)} say, usually gives a better net, and takes longer"
        )


def make_module(run: Run, net: str | None, terminal: Terminal) -> nn.Module | None:
    """The user's own module in the file that ``net`` names, with weights drawn from the run's seed.

    Raises:
        NetError: it holds no module.
    """
    if net is None:
        return None
    record = run.record
    is_own = not net.startswith(TIMM)
    body = choose_net(net, terminal).make(record.recipe.seed, record.in_shape, record.task.outputs) if is_own else None
    if body is None or isinstance(body, Net):
        raise NetError(f"--net is for a module of your own, but {net} gives a net that the run holds already.")
    return body


@contextmanager
def _preparing(terminal: Terminal) -> Iterator[Callable[[int, int], None]]:
    """Show warnings as remarks, and progress by calls of what this gives with (done, total)."""
    with warnings_as_remarks(terminal), terminal.progress() as show_progress:
        yield lambda done, total: show_progress("preparing pictures", done, total)


def _print_dataset(dataset: Dataset, reason: str, terminal: Terminal) -> None:
    from lamina.data.splits import OWN_RULE

    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    shape = "×".join(map(str, dataset.train.shape))
    terminal.remark(f"data: {dataset.name} ({reason}): {counts}; {shape}")
    if dataset.split_rule != OWN_RULE:
        terminal.remark(f"splits: {dataset.split_rule}")


def _choose_timm(text: str, weights: str | None, terminal: Terminal) -> NetChoice:
    from lamina.training.pretrained import FRESH_RECIPES, NONE, PRETRAINED, RECIPES, open_timm_net

    timm_net = open_timm_net(text.removeprefix(TIMM), weights or PRETRAINED, terminal.remark)
    terminal.remark(f"weights: {timm_net}")
    recipes = FRESH_RECIPES if timm_net.weights == NONE else RECIPES
    return NetChoice(f"{TIMM}{timm_net.name}", timm_net.module, recipes, timm_net)


def _choose_own(file: Path, name: str, terminal: Terminal) -> NetChoice:
    terminal.remark(f"net: {file} is Python, and is run: it can do everything that you can")
    found = find_net(file, name)
    recipes = {"default": Recipe()}
    made = found if isinstance(found, Net) else call_net(file, found)
    if isinstance(made, Net):
        return NetChoice(file.stem, made, recipes)
    from lamina.runs.record import OwnModule

    def make(*_: object) -> nn.Module:
        module: nn.Module = call_net(file, found)
        return module

    return NetChoice(file.stem, make, recipes, OwnModule(str(file.resolve()), name))
