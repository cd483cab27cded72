"""Experiments as text, ``NET[:RECIPE][,FIELD=VALUE…]``, and from runs, nets and recipes."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from lamina import zoo
from lamina.data import Dataset
from lamina.errors import RecipeError, RunError, check_type, find_nearest, suggest
from lamina.metrics import SCORES
from lamina.nets import Net
from lamina.runs.run import Run, is_run_or_study, load_run
from lamina.runs.start import TIMM, NetChoice, NetLike, as_net_choice, check_recipe, choice_of_timm
from lamina.studies.experiment import TRAINING, Decision, Experiment, Request, fit_experiment
from lamina.studies.seeds import check_repeatable
from lamina.training.custom import NO_PARTS, Parts, check_parts_type
from lamina.training.recipe import Recipe, overlay
from lamina.values import check_values

FIELDS = tuple(item.name for item in dataclasses.fields(Recipe))
# within parentheses, no value is followed by the end of the text
SETTING = re.compile(r"(.*),\s*([\w-]+)\s*=([^,()]*)", re.DOTALL)


@dataclass(frozen=True)
class Variant:
    """A named net with its recipe and your own functions, to compare, ablate or tune.

    Args:
        name: Name in tables and of the runs.
        net: A net or a run, as for :func:`~lamina.compare`, such as ``"cnn:best,epochs=5"``, or a
            function without arguments that makes your own module.
        recipe: A recipe, which is used unchanged, or the name of one of the net's recipes; by
            default as in ``net``.
        parts: Your own loss, optimizer, augmentation and schedule. Custom metrics are computed,
            but lamina compares by its own metrics.

    Raises:
        LaminaError: The name is empty, or an argument has the wrong type.

    >>> from torch.nn import CrossEntropyLoss
    >>> smooth = Parts(loss=CrossEntropyLoss(label_smoothing=0.1))
    >>> Variant("smooth", "mlp,epochs=2", parts=smooth).name
    'smooth'
    """

    name: str
    net: NetLike | Path | Run
    recipe: Recipe | str | None = None
    parts: Parts = NO_PARTS

    def __post_init__(self) -> None:
        check_type(self.name, (str,), "name", "a name, such as 'focal'", is_optional=False)
        if not self.name.strip() or not self.name.isprintable():
            raise RecipeError(f"name is {self.name!r}; it must be one line. Use name='focal'.")
        check_recipe(self.recipe)
        check_parts_type(self.parts)


SourceLike: TypeAlias = NetLike | Path | Run | Variant
"""A net or a run, either of these as text with settings, or a :class:`Variant`."""


@dataclass(frozen=True)
class Source:
    """What an experiment is made from: a run or a net, its recipe, and settings of the recipe."""

    origin: Run | NetChoice | str  # text is a net's name, layers or file
    recipe: Recipe | str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    parts: Parts = NO_PARTS
    given_name: str | None = None

    @property
    def title(self) -> str:
        """The name, or ``NET[:RECIPE][,FIELD=VALUE…]`` without the device."""
        if self.given_name is not None:
            return self.given_name
        name = str(self.origin)
        if isinstance(self.origin, Run):
            name = str(self.origin.path)
        elif isinstance(self.origin, NetChoice):
            net = self.origin.net
            name = str(net) if isinstance(net, Net) else self.origin.name
        if self.recipe is not None:
            name += f":{self.recipe}"
        settings = [f",{key}={value}" for key, value in self.values.items() if key != "device"]
        return f"{name}{''.join(settings)}"

    @property
    def is_changed(self) -> bool:
        return bool(self.values.keys() - {"device"}) or self.parts != NO_PARTS


def parse_experiment(text: str) -> tuple[str, str | None, dict[str, Any]]:
    """Divide ``NET[:RECIPE][,FIELD=VALUE…]`` into the net, the recipe's name and its settings.

    Layers, files and runs have no named recipes.

    Raises:
        RecipeError: A field does not exist, or its value has the wrong type or range.

    >>> parse_experiment("cnn:best,lr=0.01")
    ('cnn', 'best', {'lr': 0.01})
    >>> parse_experiment("Flatten(), Output(), batch-size=50")
    ('Flatten(), Output()', None, {'batch_size': 50})
    """
    net = text
    values: dict[str, Any] = {}
    while (setting := SETTING.fullmatch(net)) is not None:
        net = setting[1]
        name = setting[2].replace("-", "_")
        if name in values:
            raise RecipeError(f"{text!r} has two values of {name}. Leave out one of them.")
        values = {name: _check_value(text, name, setting[3].strip())} | values
    if "(" in net or ".py" in net:
        return net, None, values
    prefix = TIMM if net.startswith(TIMM) else ""
    name, _, recipe = net.removeprefix(prefix).partition(":")
    return f"{prefix}{name}", recipe or None, values


def _check_value(text: str, name: str, value: str) -> Any:
    if name not in FIELDS:
        raise RecipeError(
            f"In {text!r}, {name} is not a setting of a recipe. {suggest(name, FIELDS)}"
        )
    if name == "metric" and value not in SCORES:
        raise RecipeError(
            f"In {text!r}, metric is {value!r}, which is not a metric of lamina."
            f" {suggest(value, SCORES)}"
        )
    return check_values(Recipe, {name: read_value(value)}, RecipeError, f"In {text!r}, ")[name]


def read_value(text: str) -> Any:
    """A number, ``True``, ``False`` or ``None``, or the text itself."""
    try:
        value = ast.literal_eval(text.capitalize() if text.isalpha() else text)
    except (ValueError, SyntaxError):
        return text
    return value if value is None or isinstance(value, int | float) else text


def find_source(source: SourceLike, runs_dir: Path) -> Source:
    """Find the run or net; ``LaminaError`` if there is neither."""
    if isinstance(source, Run):
        return Source(source)
    if isinstance(source, Path):
        return _find_path(source, runs_dir)
    if isinstance(source, str):
        return _find_text(source, runs_dir)
    if isinstance(source, Variant):
        return _find_variant(source, runs_dir)
    if isinstance(source, Net) and not source.own_layers:
        return Source(str(source))
    check_repeatable(source)
    return Source(as_net_choice(source))


def _find_variant(variant: Variant, runs_dir: Path) -> Source:
    source = find_source(variant.net, runs_dir)
    recipe = source.recipe or variant.recipe
    if variant.recipe not in (None, recipe) or (recipe and isinstance(source.origin, Run)):
        raise RecipeError(
            f"{variant.name} has two recipes: its net's and {variant.recipe!r:.60}. Leave out one"
            " of them; settings follow after the net, as in 'cnn:best,lr=0.01'."
        )
    return replace(source, recipe=recipe, parts=variant.parts, given_name=variant.name)


def _find_path(path: Path, runs_dir: Path) -> Source:
    """The run in a folder, or the net in a file; never layers."""
    if is_run_or_study(str(path), runs_dir):
        return Source(load_run(path, runs_dir=runs_dir))
    if ".py" in path.name:
        return Source(str(path))
    raise RunError(f"There is no run in {path}. Pass the folder of a run, or a file of a net.")


def _find_text(text: str, runs_dir: Path) -> Source:
    if is_run_or_study(text, runs_dir):  # its name may contain a comma
        return Source(load_run(text, runs_dir=runs_dir))
    net, recipe, values = parse_experiment(text)
    name = ":".join(filter(None, (net, recipe)))
    if is_run_or_study(name, runs_dir):
        return Source(load_run(name, runs_dir=runs_dir), values=values)
    if "(" in net or ".py" in net:
        return Source(net, recipe, values)
    if net in zoo.NAMES or net.startswith(TIMM):
        return Source(net, recipe, values)
    runs = [file.parent.name for file in runs_dir.glob("*/run.json")]
    nearest = find_nearest(net, [*zoo.NAMES, *runs])
    advice = "Use a name that lamina runs lists, a net, or layers."
    if nearest:
        advice = f"Did you mean {nearest}?"
    raise RunError(f"There is no run or net {name!r}. {advice}")


def make_experiment(
    source: Source, dataset: Dataset, choose: Callable[[str], NetChoice]
) -> tuple[Experiment, list[Decision]]:
    """The experiment of a source on a data set, and how its recipe was fitted to the images."""
    if isinstance(source.origin, Run):
        return _repeat_run(source.origin, dataset, source), []
    choice = choose(source.origin) if isinstance(source.origin, str) else source.origin
    request = Request(choice, source.recipe, source.values, parts=source.parts)
    return fit_experiment(request, dataset)


def _repeat_run(run: Run, dataset: Dataset, source: Source) -> Experiment:
    record = run.record
    if (record.data.fingerprint, record.in_shape) != (dataset.fingerprint, dataset.train.shape):
        raise RunError(
            f"{run.path} was trained on other images, or at another size. Name its net instead."
        )
    missing = {*TRAINING}.intersection(record.parts) - source.parts.functions().keys()
    is_stored = record.net is not None or record.timm is not None
    if missing or not is_stored or record.started_from is not None:
        raise RunError(
            f"A study cannot repeat {run.path}: its code or first weights are not stored. Name its"
            " net, and pass your own functions, as in Variant(name, net, parts=Parts(…))."
        )
    choice = NetChoice(record.net_name, record.net or Net())
    if record.timm is not None:
        choice = choice_of_timm(record.timm)
    epochs = run.epochs or record.recipe.epochs
    recipe = replace(record.recipe, epochs=epochs, seed=0, device="auto")
    return Experiment(choice, overlay(recipe, dict(source.values)), dataset, source.parts)
