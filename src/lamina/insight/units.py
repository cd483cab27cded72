"""The units of a layer (channels or numbers): what excites them, which classes they separate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor, nn

from lamina.data import Images
from lamina.data.images import Progress
from lamina.evaluation.evaluating import score
from lamina.evaluation.scores import mean_ranks
from lamina.insight.inspected_layers import find_fields
from lamina.nets.window import Field, Pair
from lamina.targets import REGRESSION, Score
from lamina.text import shorten
from lamina.training.hooks import activations, find_paths, module_paths, watch
from lamina.training.model import Model, check_input, eval_mode, split_pixels
from lamina.training.randomness import derive_seed, seeded

SHUFFLES = 20  # of the labels, to measure chance
PATCHES = 9  # of a unit, each from a different image
OUTSIDE = 216  # gray level of a patch beyond the border of the image


@dataclass(frozen=True, eq=False)
class Responses:
    """The maximum output of each unit of a layer for each image, and its position."""

    strengths: Float32[np.ndarray, "n u"] = field(repr=False)
    # row * width + column in the layer's output
    places: Int64[np.ndarray, "n u"] = field(repr=False)
    size: Pair  # height and width of the output; (1, 1) for a vector
    field: Field | None  # receptive field; ``None`` is the whole image


@dataclass(frozen=True)
class Patch:
    """The part of an image that excites a unit; ``rows`` and ``columns`` may exceed the image."""

    row: int
    rows: Pair
    columns: Pair
    strength: float


@dataclass(frozen=True)
class Removal:
    """The score with a unit and with its output replaced with its mean, and the rise in loss."""

    before: Score
    after: Score
    loss_rise: float

    @property
    def cost(self) -> float:
        """How much the score worsens; negative if it improves without the unit."""
        if self.before.lower_is_better:
            return self.after.value - self.before.value
        return self.before.value - self.after.value

    def describe_score(self) -> str:
        change = self.after.value - self.before.value
        if not self.before.is_fraction:
            return _signed(change, 4)
        return f"{_signed(100 * change, 1)} points"

    def describe_loss(self) -> str:
        return _signed(self.loss_rise, 3)


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # adding 0 makes -0 a 0


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of a layer: the patches that excite it most, and how well it separates each class."""

    number: int
    patches: tuple[Patch, ...] = field(repr=False)
    aucs: Mapping[str, float] = field(repr=False)  # area under the ROC curve, by class
    removal: Removal | None = None

    @property
    def best(self) -> str:
        """The class that the unit separates best, by responding to it or to all other classes."""
        return max(self.aucs, key=lambda name: abs(self.aucs[name] - 0.5))

    def describe_best(self) -> str:
        if not self.aucs:
            return ""
        auc = self.aucs[self.best]
        if auc < 0.5:
            return f"not {shorten(self.best)} {1 - auc:.2f}"
        return f"{shorten(self.best)} {auc:.2f}"


def measure_responses(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    layers: Iterable[int | str],
    progress: Progress | None = None,
) -> dict[str, Responses]:
    """The responses of the units of some layers, by module path."""
    pixels = check_input(model, pixels, "pixels")
    paths = list(find_paths(model, layers).values())
    strengths: dict[str, list[Tensor]] = {path: [] for path in paths}
    places: dict[str, list[Tensor]] = {path: [] for path in paths}
    sizes: dict[str, Pair] = {}
    done = 0
    for batch in split_pixels(pixels):
        for path, output in activations(model, np.ascontiguousarray(batch), paths).items():
            greatest, greatest_places = units_first(output.float()).max(dim=2)
            sizes[path] = (1, 1)
            if output.ndim == 4:
                sizes[path] = (output.shape[2], output.shape[3])
            else:
                greatest_places = torch.zeros_like(greatest_places)
            strengths[path].append(greatest.cpu())
            places[path].append(greatest_places.cpu())
        done += len(batch)
        if progress is not None:
            progress(done, len(pixels))
    fields = find_fields(model, paths)
    return {
        path: Responses(
            torch.cat(strengths[path]).numpy(),
            torch.cat(places[path]).numpy(),
            sizes[path],
            fields[path],
        )
        for path in paths
    }


def units_first(output: Float[Tensor, "n ..."]) -> Float[Tensor, "n u p"]:
    """A layer's output as images × units × positions; tokens (N, T, D) have D units."""
    if output.ndim == 3:
        return output.transpose(1, 2)
    return output.flatten(2) if output.ndim > 2 else output[:, :, None]


def find_patches(
    responses: Responses, unit: int, in_size: Pair, most: int = PATCHES
) -> tuple[Patch, ...]:
    """The patches that excite a unit most, each from another image; none for a constant unit."""
    strengths = responses.strengths[:, unit]
    if strengths.min() == strengths.max():
        return ()
    patches = []
    for row in np.argsort(-strengths, kind="stable")[:most].tolist():
        rows = (0, in_size[0])
        columns = (0, in_size[1])
        if responses.field is not None:
            down, across = divmod(int(responses.places[row, unit]), responses.size[1])
            rows, columns = responses.field.box(down, across)
        patches.append(Patch(row, rows, columns, float(strengths[row])))
    return tuple(patches)


def cut_patch(images: Images, patch: Patch) -> UInt8[np.ndarray, "y x c"]:
    """The pixels of a patch, gray beyond the image; at most the image's height and width."""
    _, height, width = images.shape
    top, bottom = _limit_side(patch.rows, height)
    left, right = _limit_side(patch.columns, width)
    before = (max(0, -top), max(0, -left))
    after = (max(0, bottom - height), max(0, right - width))
    inside = images.pixels[patch.row, max(0, top) : bottom, max(0, left) : right]
    margins = [*zip(before, after, strict=True), (0, 0)]
    return np.pad(inside, margins, constant_values=OUTSIDE)


def _limit_side(ends: Pair, size: int) -> Pair:
    """The whole side if a patch is as long as the image."""
    if ends[1] - ends[0] >= size:
        return 0, size
    return ends


def inspect_units(
    responses: Responses,
    images: Images,
    numbers: Sequence[int],
    removals: Sequence[Removal] = (),
) -> tuple[Unit, ...]:
    """Inspect units of a layer by ``responses`` to ``images``; the first ones have ``removals``."""
    names = name_memberships(images)
    all_aucs = measure_aucs(responses.strengths[:, numbers], images)
    _, height, width = images.shape
    units = []
    for number, values, removal in zip_longest(numbers, all_aucs, removals):
        aucs = {
            name: float(auc) for name, auc in zip(names, values, strict=True) if np.isfinite(auc)
        }
        patches = find_patches(responses, number, (height, width))
        units.append(Unit(number, patches, aucs, removal))
    return tuple(units)


def rank_units(responses: Responses, images: Images) -> list[int]:
    """The indices of a layer's units, those that separate a class best first."""
    distances = np.nan_to_num(np.abs(measure_aucs(responses.strengths, images) - 0.5)).max(axis=1)
    order: list[int] = np.argsort(-distances, kind="stable").tolist()
    return order


def measure_aucs(
    strengths: Float32[np.ndarray, "n u"], images: Images
) -> Float64[np.ndarray, "u k"]:
    """The ROC AUC of each unit for each class, or numbers above the median; NaN if undefined."""
    return _area(_rank(strengths), memberships(images))


def _rank(strengths: Float32[np.ndarray, "n u"]) -> Float64[np.ndarray, "u n"]:
    return np.stack([mean_ranks(column) for column in strengths.T])


def _area(
    ranks: Float64[np.ndarray, "u n"], truth: Float64[np.ndarray, "n k"]
) -> Float64[np.ndarray, "u k"]:
    inside = truth.sum(axis=0)
    pairs = inside * (len(truth) - inside)
    above = ranks @ truth - inside * (inside + 1) / 2
    aucs: Float64[np.ndarray, "u k"] = np.divide(
        above, pairs, out=np.full(above.shape, np.nan), where=pairs > 0
    )
    return aucs


def measure_chance(responses: Responses, images: Images) -> float:
    """The AUC of a layer's best unit by chance: the 95 % quantile of 20 shuffles of the labels."""
    ranks, truth = _rank(responses.strengths), memberships(images)
    generator = np.random.default_rng(derive_seed(0, "chance"))
    reached = [
        np.nan_to_num(np.abs(_area(ranks, generator.permutation(truth)) - 0.5)).max()
        for _ in range(SHUFFLES)
    ]
    return 0.5 + float(np.quantile(reached, 0.95))


def name_memberships(images: Images) -> tuple[str, ...]:
    """The names of the columns of :func:`measure_aucs`."""
    if images.kind is REGRESSION:
        return tuple(f"high {name}" for name in images.target_names)
    names = images.kind.class_names(images.target_names)
    return names[1:] if len(names) == 2 and len(images.target_names) == 1 else names


def memberships(images: Images) -> Float64[np.ndarray, "n k"]:
    """1 for each class or label that an image has, or each number above its median, else 0."""
    if images.kind is REGRESSION:
        return np.where(images.targets > np.median(images.targets, axis=0), 1.0, 0.0)
    members = images.kind.members(images.targets, images.target_names)
    truth = np.zeros((len(images), len(members)))
    for column, rows in enumerate(members):
        truth[rows, column] = 1
    return truth[:, -len(name_memberships(images)) :]


def measure_removals(
    model: Model, images: Images, path: str, units: Sequence[int], progress: Progress | None = None
) -> tuple[Removal, ...]:
    """Measure the effect on ``images`` of replacing each unit's output with its mean."""
    # After Morcos et al., arXiv 1803.06959, but with the mean instead of 0, so that a constant unit
    # costs nothing.
    batches = split_pixels(np.ascontiguousarray(images.pixels))
    chunks = [torch.from_numpy(batch) for batch in batches]
    outputs = [activations(model, chunk, [path])[path] for chunk in chunks]
    sums = [units_first(output).mean(dim=2).sum(dim=0) for output in outputs]
    means = torch.stack(sums).sum(dim=0) / len(images)
    before, loss_before = _judge(model, images, _finish(model, path, chunks, outputs))
    removals = []
    for done, unit in enumerate(units, start=1):
        changed = [_set_unit(output, unit, means[unit]) for output in outputs]
        after, loss_after = _judge(model, images, _finish(model, path, chunks, changed))
        removals.append(Removal(before, after, loss_after - loss_before))
        if progress is not None:
            progress(done, len(units))
    return tuple(removals)


def _judge(model: Model, images: Images, logits: Float32[np.ndarray, "n k"]) -> tuple[Score, float]:
    targets = torch.from_numpy(np.array(images.targets))
    loss = model.task.loss(torch.from_numpy(logits).double(), targets)
    return score(model.task, logits, images.targets), loss.item()


def _set_unit(
    output: Float[Tensor, "n ..."], unit: int, value: Float[Tensor, ""]
) -> Float[Tensor, "n ..."]:
    changed = output.clone()
    changed[(..., unit) if output.ndim == 3 else (slice(None), unit)] = value
    return changed


def _count_calls(model: Model, path: str, images: UInt8[Tensor, "n h w c"]) -> int:
    calls = []
    with watch(model, [path], lambda *call: calls.append(call)):
        model(images.to(model.device))
    return len(calls)


@torch.inference_mode()
def _finish(
    model: Model,
    path: str,
    chunks: Sequence[UInt8[Tensor, "_ h w c"]],
    outputs: Sequence[Float[Tensor, "_ ..."]],
) -> Float32[np.ndarray, "_ k"]:
    """The logits that follow from changed outputs of a layer."""
    paths = module_paths(model)
    with eval_mode(model), seeded(0, model.device):
        if path in paths and isinstance(model.body, nn.Sequential):
            rest = model.body[paths.index(path) + 1 :]
            logits = [rest(output) for output in outputs]
        else:
            calls = _count_calls(model, path, chunks[0][:1])
            logits = [
                _replace_output(model, path, calls, chunk, output)
                for chunk, output in zip(chunks, outputs, strict=True)
            ]
    return torch.cat(logits).float().cpu().numpy()


def _replace_output(
    model: Model,
    path: str,
    calls: int,
    chunk: UInt8[Tensor, "n h w c"],
    output: Float[Tensor, "n ..."],
) -> Float[Tensor, "n k"]:
    """The logits for ``chunk`` if the last of a module's ``calls`` returns ``output``."""
    countdown = count(1 - calls)

    def replace_last(*_: object) -> Tensor | None:
        if next(countdown) != 0:
            return None
        return output.clone()  # later modules may work in place

    with watch(model, [path], replace_last):
        logits: Tensor = model(chunk.to(model.device))
    return logits
