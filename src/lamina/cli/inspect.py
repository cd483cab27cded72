"""lamina inspect: show what a run's net has learned, by layer and by unit."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from lamina.cli.models import choose_layer, choose_run_data, load_predictor
from lamina.cli.options.inspect_options import InspectOptions
from lamina.cli.output import make_folder, save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset
from lamina.drawing.unit_sheets import build_unit_sheet, build_units_sheet, draw_probes
from lamina.errors import NetError
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.probes import compare_probes
from lamina.insight.units import InspectedImages, LayerUnits, choose_images, inspect_layers
from lamina.training.model import Model

MOST_UNITS = 96  # on the figure of a single layer


def run(options: InspectOptions, terminal: Terminal) -> int:
    if options.unit is not None and options.layer is None:
        raise NetError(f"--unit is {options.unit}, but no layer is given. Add --layer LAYER.")
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    layer = None
    if options.layer is not None:
        layer = choose_layer(model, options.layer)
    folder = make_folder(options.output or run.path / "inspection")
    dataset = choose_run_data(run, options.data, terminal)
    if dataset.fingerprint != run.record.data.fingerprint:
        terminal.remark("warning: the data set has changed since the run was trained")
    images = choose_images(model, dataset)
    _introduce(images, dataset, terminal)
    if layer is None:
        _show_all(model, images, folder, terminal)
    elif options.unit is None:
        _show_layer(model, images, layer, folder, terminal)
    else:
        (units,) = inspect_layers(
            model, images.train, [layer], number=options.unit, scored=images.removals
        )
        _show_unit(units, folder, terminal)
    return 0


def _introduce(images: InspectedImages, dataset: Dataset, terminal: Terminal) -> None:
    split = images.held_out.split
    if split == "train":
        terminal.remark(
            "warning: there are no val or test images with labels; lamina computes scores on"
            " training images"
        )
    terminal.remark(
        f"images: {len(images.train):,} of {len(dataset.train):,} in train for patches,"
        f" {len(images.held_out):,} of {len(dataset.splits[split]):,} in {split} for scores"
    )


def _show_all(model: Model, images: InspectedImages, folder: Path, terminal: Terminal) -> None:
    layers = choose_layers(model)
    terminal.remark(f"fitting probes to {len(layers)} layers, with trained and with random weights")
    with terminal.progress(QUIET_SECONDS) as show_progress:
        progress = partial(show_progress, "probing layers")
        probes = compare_probes(model, images.fitted, images.held_out, layers, progress)
        inspected = inspect_layers(
            model,
            images.train,
            layers,
            scored=images.removals,
            progress=partial(show_progress, "inspecting units"),
        )
    save_sheet(draw_probes(probes), folder / "probes.png")
    terminal.tabulate(*probes.table(), texts=1)
    for units, probe in zip(inspected, probes.layers[1:], strict=True):
        file = _draw(units, folder, terminal)
        terminal.emit("layer", **probe.to_json(), file=str(file))
    terminal.say("", probes.headline(), f"figures: {folder} (one per layer; probes.png)")


def _show_layer(
    model: Model, images: InspectedImages, path: str, folder: Path, terminal: Terminal
) -> None:
    with terminal.progress(QUIET_SECONDS) as show_progress:
        progress = partial(show_progress, "inspecting units")
        scored = images.removals
        (units,) = inspect_layers(
            model, images.train, [path], MOST_UNITS, scored=scored, progress=progress
        )
    file = _draw(units, folder, terminal)
    terminal.say(units.headline())
    terminal.tabulate(*units.table(), texts=2)
    if rest := units.count - len(units.units):
        terminal.say(f"and {rest:,} more, which separate the classes less (--unit N)")
    terminal.say(f"figure: {file}")


def _show_unit(units: LayerUnits, folder: Path, terminal: Terminal) -> None:
    (unit,) = units.units
    file = folder / f"layer-{_slug(units.name)}-unit-{unit.number + 1}.png"
    save_sheet(build_unit_sheet(units), file)
    title, remark = units.describe_unit()
    terminal.say(f"{title}: {remark}")
    ordered = sorted(unit.aucs.items(), key=lambda pair: -abs(pair[1] - 0.5))
    terminal.tabulate(("class", "AUC"), [(name, f"{auc:.3f}") for name, auc in ordered])
    terminal.say(f"figure: {file}")
    _emit(units, file, terminal)


def _draw(units: LayerUnits, folder: Path, terminal: Terminal) -> Path:
    file = folder / f"layer-{_slug(units.name)}.png"
    save_sheet(build_units_sheet(units), file)
    _emit(units, file, terminal)
    return file


def _emit(units: LayerUnits, file: Path, terminal: Terminal) -> None:
    for unit in units.to_json()["shown"]:
        terminal.emit("unit", layer=units.layer, file=str(file), **unit)


def _slug(name: str) -> str:
    """A layer's name as part of a file name, such as ``05-conv2d-relu``."""
    number, _, kind = name.partition(" ")
    words = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    if number.isdecimal():
        return f"{number.zfill(2)}-{words}"
    place = re.sub(r"[^A-Za-z0-9_.]+", "-", number)
    return f"{place}-{words}"
