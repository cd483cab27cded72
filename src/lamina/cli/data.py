"""lamina data: what is in a data set and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lamina.cli.choices import choose_data
from lamina.cli.options import given_fields, parse_options
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.load import EXAMPLES
from lamina.data.preparation import Preparation
from lamina.errors import DataError, plural
from lamina.targets import KINDS

if TYPE_CHECKING:
    from PIL import Image

    from lamina.data import Dataset
    from lamina.data.findings import Finding, Sighting
    from lamina.data.inspection import Inspection, SizeSummary

    PreparationFields = dict[str, Any]
else:
    PreparationFields = given_fields(
        Preparation,
        {
            "size_px": tyro.conf.arg(name="size", metavar="PX"),
            "task": tyro.conf.arg(metavar="{" + ",".join(kind.name for kind in KINDS) + "}"),
            "image_column": tyro.conf.arg(metavar="NAME"),
            "label_columns": tyro.conf.arg(name="label-column", metavar="NAME..."),
            "label_separator": tyro.conf.arg(metavar="TEXT"),
            "split_column": tyro.conf.arg(metavar="NAME"),
            "val_fraction": tyro.conf.arg(name="val", metavar="FRACTION"),
            "test_fraction": tyro.conf.arg(name="test", metavar="FRACTION"),
        },
    )


@dataclass(frozen=True)
class Options:
    """Show what is in a data set and what is wrong with it. Nothing is changed.

    Prints splits, classes, counts, sizes and channels, then findings, worst first: pictures in two splits or with two
    targets, unreadable files, copies, blank pictures, missing or tiny classes. The exit status is 0 even if something
    is wrong with the data. With --labels, --with or --duplicates, it looks for these instead.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a name or a path"""
    preparation: PreparationFields = field(default_factory=dict)
    """how to read the pictures and their targets"""
    contact_sheet: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png", help_behavior_hint="")] = None
    """draw training pictures of each class to this file"""
    samples: int = 10
    """pictures per class, label or number on the contact sheet"""
    labels: bool = False
    """look for likely wrong labels, with nets trained for it on other pictures"""
    run: Annotated[Path | None, tyro.conf.arg(name="with", metavar="RUN", help_behavior_hint="")] = None
    """look with a run's model: for likely wrong labels, hard classes and pictures, and outliers"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """with --with: file.py[:NAME] that makes your own module; a run stores only its weights"""
    from_: Annotated[Literal["auto", "scratch"], tyro.conf.arg(name="from")] = "auto"
    """with --labels: scratch uses no pretrained weights"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """with --labels or --with: where to compute"""
    suspects: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png", help_behavior_hint="")] = None
    """draw the pictures with likely wrong labels to this file"""
    hard: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png", help_behavior_hint="")] = None
    """with --with: draw the pictures with the largest losses, and those of the pairs that are confused most"""
    duplicates: bool = False
    """look for near-duplicates: shifted, mirrored, recoloured or compressed again"""
    top: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """print the first N of each list; --json has all but of the largest losses and outliers"""
    json: bool = False
    """print JSON objects on stdout, with every picture of each finding"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "data", arguments)
    sheet = options.contact_sheet
    if options.samples < 1:
        raise DataError(f"--samples was {options.samples}, but must be at least 1.")
    check_png("--contact-sheet", sheet)
    terminal = Terminal(as_json=options.json)
    if options.labels or options.run is not None or options.duplicates or options.suspects or options.hard:
        from lamina.cli.wrong import look

        return look(options, terminal)
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    from lamina.data.inspection import inspect

    with terminal.progress(QUIET_SECONDS) as show_progress:
        inspection = inspect(dataset, lambda done, total: show_progress("inspecting pictures", done, total))
    if sheet is not None:
        from lamina.drawing import build_contact_sheet

        save_sheet(build_contact_sheet(dataset.train, options.samples), sheet)
    _print_summary(dataset, inspection, terminal)
    terminal.emit("data", **_to_json(dataset, inspection), contact_sheet=None if sheet is None else str(sheet))
    terminal.remark(f"contact sheet: {sheet}" if sheet else "--contact-sheet FILE.png draws samples of each class.")
    return 0


def check_png(flag: str, file: Path | None) -> None:
    """Reject a file for a picture that is no PNG."""
    if file is not None and file.suffix.lower() != ".png":
        raise DataError(f"{flag} was {file}, but must end in .png.")


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet of pictures."""
    from lamina.drawing import save_figure

    try:
        save_figure(sheet, path)
    except OSError as error:
        raise DataError(
            f"Cannot write {path}: {error.strerror or error}. Give a file in a folder that exists."
        ) from error


def _print_summary(dataset: Dataset, inspection: Inspection, terminal: Terminal) -> None:
    splits = inspection.splits
    names = [split.split for split in splits]
    images = ("images", *(f"{split.images:,}" for split in splits))
    if splits[0].numbers:
        terminal.tabulate(("split", *names), [images])
        rows = []
        for place in range(len(splits[0].numbers)):
            for split in splits:
                for each in split.numbers[place : place + 1]:  # an empty split has none
                    figures = (f"{value:.6g}" for value in (each.minimum, each.mean, each.deviation, each.maximum))
                    rows.append((each.name, split.split, *figures))
        terminal.tabulate(("number", "split", "min", "mean", "deviation", "max"), rows, texts=2)
    else:
        targets = [(name, *(f"{split.counts[name]:,}" for split in splits)) for name in splits[0].counts]
        terminal.tabulate(("target", *names), [*targets, images])
    if inspection.imbalance_ratio is not None:
        terminal.say(f"imbalance: {inspection.imbalance_ratio:.3g} (largest class ÷ smallest, in train)")
    if inspection.sizes is not None:
        print_sizes(inspection.sizes, terminal)
    terminal.say(f"input shape: {'×'.join(map(str, dataset.train.shape))}")
    channels = inspection.channels
    mean, deviation = (" ".join(f"{value:.1f}" for value in values) for values in (channels.mean, channels.deviation))
    grey = f"; grey: {channels.grey:,} of {inspection.images:,} images" if len(channels.mean) == 3 else ""
    terminal.say(f"channels: mean {mean}; deviation {deviation} (of 255){grey}")
    terminal.say(f"fingerprint: {dataset.fingerprint}")
    counts = Counter(finding.severity for finding in inspection.findings)
    found = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items())
    terminal.say("", f"found: {found or 'nothing wrong'}")
    for finding in inspection.findings:
        _print_finding(finding, terminal)


def print_sizes(sizes: SizeSummary, terminal: Terminal) -> None:
    """The sizes of the pictures before they were resized."""
    if sizes.sizes == 1:
        ((height, width, count),) = sizes.common
        terminal.say(f"original size: {height}×{width} ({plural(count, 'picture', 'pictures')})")
        return
    for what, place in (("heights", 0), ("widths", 1)):
        low, middle, high = (each[place] for each in (sizes.smallest_px, sizes.median_px, sizes.largest_px))
        terminal.say(f"{what}: {low} to {high} px, median {middle:.0f}")
    common = ", ".join(f"{height}×{width} ({count:,})" for height, width, count in sizes.common)
    terminal.say(f"{sizes.sizes:,} sizes (height×width), most often {common}")


def _print_finding(finding: Finding, terminal: Terminal) -> None:
    terminal.say(f"{finding.severity}: {finding.message}")
    for place, sighting in enumerate(finding.images[:EXAMPLES]):
        twin = f" = {_name(finding.twins[place], finding)}" if finding.twins else ""
        terminal.say(f"    {_name(sighting, finding)}{twin}")
    if len(finding.images) > EXAMPLES:
        terminal.say(f"    and {len(finding.images) - EXAMPLES:,} more")


def _name(sighting: Sighting, finding: Finding) -> str:
    """A picture's name, with its split unless the name begins with it, and its target if targets conflict."""
    remarks: list[str] = []
    if sighting.split is not None and not sighting.name.lower().startswith(f"{sighting.split}/"):
        remarks.append(sighting.split)
    if finding.kind == "conflict":
        remarks.append(str(sighting.target))
    return f"{sighting.name} ({': '.join(remarks)})" if remarks else sighting.name


def _to_json(dataset: Dataset, inspection: Inspection) -> Mapping[str, Any]:
    from lamina.values import fields_to_json

    def list_pictures(sightings: Sequence[Sighting]) -> list[dict[str, Any]]:
        return [sighting._asdict() for sighting in sightings]

    return {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "shape": dataset.train.shape,
        "images": {split.split: split.images for split in inspection.splits},
        "counts": {split.split: split.counts for split in inspection.splits},
        "numbers": {split.split: [fields_to_json(spread) for spread in split.numbers] for split in inspection.splits},
        "imbalance_ratio": inspection.imbalance_ratio,
        "sizes": None if inspection.sizes is None else fields_to_json(inspection.sizes),
        "channels": fields_to_json(inspection.channels),
        "split_rule": dataset.split_rule,
        "problems": [{"image": problem.path, "reason": problem.reason} for problem in dataset.problems],
        "duplicates": [list_pictures(group) for group in inspection.duplicates],
        "findings": [
            fields_to_json(finding) | {"images": list_pictures(finding.images), "twins": list_pictures(finding.twins)}
            for finding in inspection.findings
        ],
    }
