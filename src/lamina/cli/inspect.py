"""lamina inspect: show what a run's net has learned, by layer and by unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamina.cli.models import choose_layer, choose_run_data, load_predictor
from lamina.cli.options.inspect_options import InspectOptions
from lamina.cli.output import make_folder, save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.drawing.unit_sheets import build_unit_sheet, build_units_sheet, draw_probes
from lamina.errors import DataError, NetError
from lamina.insight.inspected_layers import choose_layers, name_stage, read_filters
from lamina.insight.probes import Probe, probe_layers, untrain
from lamina.insight.units import (
    Removal,
    Responses,
    Unit,
    inspect_units,
    measure_chance,
    measure_removals,
    measure_responses,
    rank_units,
)
from lamina.targets import MULTI_LABEL
from lamina.training.model import Model

# Maximum numbers of images, taken evenly, for each measurement.
SEEN_IMAGES, SEEN_PIXELS = 10_000, 40_000_000  # training images that are searched for patches
PROBE_IMAGES = 4000
SCORED_IMAGES = 2000
REMOVAL_IMAGES = 500
# instead of SEEN_PIXELS for torch modules, which run completely for each layer
MODULE_PIXELS = 5_000_000
REMOVED_PIXELS = 25_000_000  # for torch modules, while units are removed, in all layers together
# fewer images if they are large, because removals are slow
LEAST_IMAGES = 50
MOST_PIXELS = 2_000_000
SHOWN_UNITS, MOST_UNITS = 24, 96  # units per figure, without and with ``--layer``


def run(options: InspectOptions, terminal: Terminal) -> int:
    if options.unit is not None and options.layer is None:
        raise NetError(f"--unit is {options.unit}, but no layer is given. Add --layer LAYER.")
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    layer = None if options.layer is None else choose_layer(model, options.layer)
    folder = make_folder(options.output or run.path / "inspection")
    dataset = choose_run_data(run, options.data, terminal)
    if dataset.fingerprint != run.record.data.fingerprint:
        terminal.remark("warning: the data set has changed since the run was trained")
    if dataset.train.shape != model.in_shape:
        shapes = ("×".join(map(str, shape)) for shape in (model.in_shape, dataset.train.shape))
        raise DataError(
            "The run's images have shape {}, but the images of --data have {}. Use the run's data"
            " set.".format(*shapes)
        )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        inspection = _Inspection(
            model, *_choose_images(model, dataset, terminal), folder, terminal, show_progress
        )
        if layer is None:
            _show_all(inspection)
        else:
            _show_layer(inspection, layer, options.unit)
    return 0


@dataclass(frozen=True)
class _Inspection:
    """A model, the images to inspect it with, and the destination of the results."""

    model: Model
    train: Images
    held_out: Images
    folder: Path
    terminal: Terminal
    show_progress: Callable[[str, int, int], None]


def _choose_images(model: Model, dataset: Dataset, terminal: Terminal) -> tuple[Images, Images]:
    for images in (dataset.val, dataset.test):
        if images is not None and (images.kind is not MULTI_LABEL or images.targets.any()):
            break
    else:
        terminal.remark(
            "warning: there are no val or test images with labels; lamina computes scores on"
            " training images"
        )
        images = dataset.train
    pixels = MODULE_PIXELS if model.net is None else SEEN_PIXELS
    train = _take(dataset.train, SEEN_IMAGES, pixels)
    held_out = _take(images, SCORED_IMAGES, pixels)
    terminal.remark(
        f"images: {len(train):,} of {len(dataset.train):,} in train for patches, {len(held_out):,}"
        f" of {len(images):,} in {images.split} for scores"
    )
    return train, held_out


def _take(images: Images, most: int, pixels: int = MOST_PIXELS) -> Images:
    _, height, width = images.shape
    return images.take_evenly(min(most, max(LEAST_IMAGES, pixels // (height * width))))


def _show_all(inspection: _Inspection) -> None:
    model = inspection.model
    train = inspection.train
    terminal = inspection.terminal
    layers = choose_layers(model)
    responses = measure_responses(
        model, train.pixels, layers, partial(inspection.show_progress, "measuring responses")
    )
    fitted = train.take_evenly(PROBE_IMAGES)
    terminal.remark(f"fitting probes to {len(layers)} layers, with trained and with random weights")
    progress = partial(inspection.show_progress, "probing layers")
    trained = probe_layers(model, fitted, inspection.held_out, layers, progress)
    progress = partial(inspection.show_progress, "probing random weights")
    untrained = probe_layers(untrain(model, fitted), fitted, inspection.held_out, layers, progress)
    score = trained[0].score
    terminal.remark("measuring the effect of removing units")
    rows = [("image", "", "", _format(trained[0]), "")]
    names = ["image"]
    events = []
    for path, probe, control in zip(layers, trained[1:], untrained[1:], strict=True):
        name = name_stage(model, path)
        names.append(name)
        _, sheet = _draw_units(inspection, path, responses[path], SHOWN_UNITS, len(layers))
        units = responses[path].strengths.shape[1]
        field = _describe_field(responses[path])
        rows.append((name, f"{units:,}", field, _format(probe), _format(control)))
        events.append(
            {
                "layer": path,
                "name": name,
                "units": units,
                "sees_px": _to_json(responses[path]),
                "metric": score.name,
                "probe": probe.score.value,
                "probe_untrained": control.score.value,
                "file": str(sheet),
            }
        )
    heads = ("layer", "units", "receptive field", f"probe {score.title}", "random weights")
    terminal.tabulate(heads, rows, texts=1)
    values = [probe.score.value for probe in trained]
    controls = [probe.score.value for probe in untrained]
    figure = draw_probes(names, values, controls, score)
    save_sheet(figure, inspection.folder / "probes.png")
    for event in events:
        terminal.emit("layer", **event)
    terminal.say(
        "",
        f"A probe is a linear classifier on a layer's output, fitted to {len(fitted):,} training"
        f" images and scored on {len(inspection.held_out):,} of {inspection.held_out.split}.",
        f"figures: {inspection.folder} (one per layer; probes.png)",
    )


def _show_layer(inspection: _Inspection, path: str, unit: int | None) -> None:
    terminal = inspection.terminal
    responses = measure_responses(
        inspection.model,
        inspection.train.pixels,
        [path],
        partial(inspection.show_progress, "measuring responses"),
    )[path]
    if unit is not None:
        _show_unit(inspection, path, responses, unit)
        return
    units, file = _draw_units(inspection, path, responses, MOST_UNITS)
    name = name_stage(inspection.model, path)
    terminal.say(
        f"layer {name}: {responses.strengths.shape[1]:,} units, receptive field"
        f" {_describe_field(responses)}"
    )
    rows = []
    metric = "score"
    for inspected in units:
        change = ""
        loss_change = ""
        if inspected.removal is not None:
            metric = inspected.removal.before.title
            change = inspected.removal.describe_score()
            loss_change = inspected.removal.describe_loss()
        rows.append((str(inspected.number + 1), inspected.describe_best(), change, loss_change))
    heads = ("unit", "separates best (AUC)", f"{metric} without unit", "loss")
    terminal.tabulate(heads, rows, texts=2)
    if rest := responses.strengths.shape[1] - len(units):
        terminal.say(f"and {rest:,} more, which separate the classes less (--unit N)")
    terminal.say(f"figure: {file}")


def _show_unit(inspection: _Inspection, path: str, responses: Responses, unit: int) -> None:
    units, terminal = responses.strengths.shape[1], inspection.terminal
    name = name_stage(inspection.model, path)
    if not 1 <= unit <= units:
        raise NetError(
            f"--unit is {unit}, but layer {name} has units 1 to {units:,}. Use --unit 1."
        )
    some = _take(inspection.held_out, REMOVAL_IMAGES)
    removals = _measure_removals(inspection, path, some, [unit - 1])
    (inspected,) = inspect_units(responses, inspection.train, [unit - 1], removals)
    title = f"layer {name}, unit {unit} of {units:,}"
    remark = f"receptive field {_describe_field(responses)}"
    if inspected.removal is not None:
        remark = f"{remark}; {_describe_removal(inspected.removal, some)}"
    file = inspection.folder / f"layer-{_slug(name)}-unit-{unit}.png"
    save_sheet(build_unit_sheet(inspection.train, inspected, title, remark), file)
    terminal.say(f"{title}: {remark}")
    ordered = sorted(inspected.aucs.items(), key=lambda pair: -abs(pair[1] - 0.5))
    terminal.tabulate(("class", "AUC"), [(name, f"{auc:.3f}") for name, auc in ordered])
    terminal.say(f"figure: {file}")
    _emit_unit(inspection, path, inspected, file)


def _draw_units(
    inspection: _Inspection, path: str, responses: Responses, most: int, layers: int = 1
) -> tuple[tuple[Unit, ...], Path]:
    """Draw the units of a layer that separate a class best; ``layers`` counts all layers drawn."""
    name = name_stage(inspection.model, path)
    numbers = rank_units(responses, inspection.train)[:most]
    some = _take(inspection.held_out, REMOVAL_IMAGES)
    removed = len(numbers)
    if inspection.model.net is None:
        removed = min(removed, REMOVED_PIXELS // (layers * some.pixels[..., 0].size))
    removals = _measure_removals(inspection, path, some, numbers[:removed])
    units = inspect_units(responses, inspection.train, numbers, removals)
    chance = measure_chance(responses, inspection.train)
    count = responses.strengths.shape[1]
    shown = (
        f"the {len(units)} of {count:,} units that separate a class best"
        if len(units) < count
        else f"{count} units"
    )
    remark = (
        f"Receptive field: {_describe_field(responses)}. For each unit: the training patches that"
        " excite it most; the class that it separates best on the training images, with the area"
        f" under the ROC curve (by chance {chance:.2f}); the effect of removing"
        f" {'it' if removed == len(numbers) else f'it (first {removed} units)'}, on {len(some):,}"
        f" {some.split} images."
    )
    file = inspection.folder / f"layer-{_slug(name)}.png"
    filters = read_filters(inspection.model, path)
    save_sheet(
        build_units_sheet(inspection.train, units, f"layer {name}: {shown}", remark, filters), file
    )
    for unit in units:
        _emit_unit(inspection, path, unit, file)
    return units, file


def _measure_removals(
    inspection: _Inspection, path: str, images: Images, numbers: Sequence[int]
) -> tuple[Removal, ...]:
    """The effect of removing units; none if it has no score, as no image has a label."""
    if not numbers:
        return ()
    name = name_stage(inspection.model, path)
    progress = partial(inspection.show_progress, f"removing units of {name}")
    try:
        return measure_removals(inspection.model, images, path, numbers, progress)
    except DataError:
        return ()


def _emit_unit(inspection: _Inspection, path: str, unit: Unit, file: Path) -> None:
    patches = []
    for patch in unit.patches:
        (left, right), (top, bottom) = patch.columns, patch.rows
        name = inspection.train.names[patch.row]
        patches.append(
            {"image": name, "box_px": [left, top, right, bottom], "strength": patch.strength}
        )
    inspection.terminal.emit(
        "unit",
        layer=path,
        unit=unit.number + 1,
        auc=dict(unit.aucs),
        file=str(file),
        patches=patches,
        cost=unit.removal and unit.removal.cost,
        loss_rise=unit.removal and unit.removal.loss_rise,
    )


def _describe_field(responses: Responses) -> str:
    return "the whole image" if responses.field is None else str(responses.field)


def _to_json(responses: Responses) -> list[int] | None:
    return None if responses.field is None else list(responses.field.size_px)


def _describe_removal(removal: Removal, images: Images) -> str:
    return (
        f"without this unit, {removal.before.title} changes by {removal.describe_score()} and the"
        f" loss by {removal.describe_loss()}, on {len(images):,} {images.split} images"
    )


def _format(probe: Probe) -> str:
    return probe.score.format(probe.score.value, 1)


def _slug(name: str) -> str:
    """A layer's name as part of a file name, such as ``05-conv2d-relu``."""
    number, _, kind = name.partition(" ")
    words = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return (
        f"{number.zfill(2)}-{words}"
        if number.isdecimal()
        else f"{re.sub(r'[^A-Za-z0-9_.]+', '-', number)}-{words}"
    )
