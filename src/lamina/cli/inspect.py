"""lamina inspect: show what a run's net has learned, by layer and by unit."""

from __future__ import annotations

import re
from pathlib import Path

from lamina.cli.models import choose_layer, choose_run_data, load_predictor
from lamina.cli.options import Inspect
from lamina.cli.output import make_folder, save_sheet
from lamina.cli.terminal import Terminal
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.probes import compare_probes
from lamina.insight.units import InspectedImages, LayerUnits, choose_images, inspect_layers
from lamina.training.model import Model

MOST_UNITS = 96  # on the figure of a single layer


def run(options: Inspect, terminal: Terminal) -> int:

    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    layers = []
    if options.layer is not None:
        layers.append(choose_layer(model, options.layer))
    folder = make_folder(options.output or run.path / "inspection")
    dataset = choose_run_data(run, options.data, terminal)
    images = choose_images(model, dataset)
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
    if not layers:
        _show_all(model, images, folder, terminal)
        return 0
    with terminal.progress("inspecting units") as progress:
        (units,) = inspect_layers(model, images.train, layers, MOST_UNITS, progress)
    _show_layer(units, folder, terminal)
    return 0


def _show_all(model: Model, images: InspectedImages, folder: Path, terminal: Terminal) -> None:
    from lamina.drawing.unit_sheets import draw_probes

    layers = choose_layers(model)
    terminal.remark(f"fitting probes to {len(layers)} layers, with trained and with random weights")
    with terminal.progress("probing layers") as progress:
        probes = compare_probes(model, images.fitted, images.held_out, layers, progress)
    with terminal.progress("inspecting units") as progress:
        inspected = inspect_layers(model, images.train, layers, progress=progress)
    save_sheet(draw_probes(probes), folder / "probes.png")
    terminal.tabulate(*probes.table(), texts=1)
    for units, probe in zip(inspected, probes.layers[1:], strict=True):
        file = _draw(units, folder, terminal)
        terminal.emit("layer", **probe.to_json(), file=str(file))
    terminal.say("", probes.headline(), f"figures: {folder} (one per layer; probes.png)")


def _show_layer(units: LayerUnits, folder: Path, terminal: Terminal) -> None:
    file = _draw(units, folder, terminal)
    terminal.say(units.headline())
    terminal.tabulate(*units.table(), texts=2)
    rest = units.count - len(units.units)
    if rest:
        terminal.say(f"and {rest:,} more, which separate the classes less")
    terminal.say(f"figure: {file}")


def _draw(units: LayerUnits, folder: Path, terminal: Terminal) -> Path:
    from lamina.drawing.unit_sheets import build_units_sheet

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
