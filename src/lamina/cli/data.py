"""lamina data: show what a data set contains, and its problems."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.cli.data_argument import choose_data
from lamina.cli.options import DATA, Data
from lamina.cli.output import check_output, save_sheet, writing
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.data import Dataset, Images, Preparation
from lamina.data.cache import cache_folder
from lamina.data.findings import Finding, Sighting, imbalance
from lamina.data.held_out import advise_folds
from lamina.data.inspection import Inspection, SizeSummary, inspect, measure_spread
from lamina.data.load import EXAMPLES
from lamina.data.sources.drawn import POSED_KINDS, write_sample
from lamina.errors import DataError, plural
from lamina.targets import REGRESSION
from lamina.values import fields_to_json


def run(options: Data, terminal: Terminal) -> int:
    if options.sample is not None:
        _refuse_others(options)
        _write_sample(options.sample, terminal)
        return 0
    if options.data is None:
        raise DataError(f"lamina data needs DATA: {DATA}. Use --sample photos to draw a folder.")

    sheet = options.contact_sheet
    if sheet is not None:
        check_output(sheet, (".png",), "--contact-sheet")
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    with terminal.progress("inspecting images") as progress:
        inspection = inspect(dataset, progress)
    _print_summary(dataset, inspection, options.top, terminal)
    advice = advise_folds(dataset)
    if advice:
        terminal.hint(f"advice: {advice}")
    values = _to_json(dataset, inspection)
    terminal.emit("data", **values, contact_sheet=sheet and str(sheet))
    terminal.hint(f"Decoded copies are in {cache_folder()}; you may delete any of them.")
    if sheet is None:
        terminal.hint("To draw samples of each class, use --contact-sheet FILE.png.")
        return 0
    from lamina.drawing.contact_sheet import build_contact_sheet

    images = next(images for images in dataset.splits.values() if len(images))
    save_sheet(build_contact_sheet(images, options.samples), sheet)
    terminal.remark(f"contact sheet: {sheet}")
    return 0


def _refuse_others(options: Data) -> None:
    if options.data is not None:
        raise DataError(
            f"--sample saves new images, and does not read {options.data}. Leave out"
            f" {options.data} or --sample."
        )
    reason = "--sample only saves images."
    refuse(options, reason, "top", "contact_sheet", "samples", "progress", "preparation")


def _write_sample(folder: Path, terminal: Terminal) -> None:

    with writing(folder, "Use another folder."):
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"The folder {folder} is not empty. Use a new folder.")
        files = write_sample(folder)
    terminal.say(f"{folder}: {len(files)} images in {len(POSED_KINDS)} classes")
    terminal.hint(f"Next: lamina data {shlex.quote(str(folder))}")
    terminal.emit("sample", folder=str(folder), files=files)


def _print_summary(dataset: Dataset, inspection: Inspection, top: int, terminal: Terminal) -> None:
    splits = dataset.splits
    images, *targets = dataset.count_rows()
    if dataset.train.kind is REGRESSION:
        terminal.tabulate(("split", *splits), [images])
        _print_numbers(dataset, terminal)
    else:
        _print_targets(dataset.train, ("target", *splits), [*targets, images], top, terminal)
    ratio = imbalance(dataset.train)
    if ratio is not None:
        terminal.say(f"imbalance: {ratio:.3g} (size of the largest training class / smallest)")
    if inspection.sizes is not None:
        print_sizes(inspection.sizes, terminal)
    terminal.say(f"input shape: {'×'.join(map(str, dataset.train.shape))}")
    terminal.say(f"fingerprint: {dataset.fingerprint}")
    severities = Counter(finding.severity for finding in inspection.findings)
    counts = [f"{count} {severity}{'s' * (count > 1)}" for severity, count in severities.items()]
    terminal.say("", f"problems: {', '.join(counts) or 'none'}")
    for finding in inspection.findings:
        _print_finding(finding, terminal)


def _print_numbers(dataset: Dataset, terminal: Terminal) -> None:

    spreads = [measure_spread(images) for images in dataset.splits.values()]
    rows = []
    for numbers in zip(*spreads, strict=True):
        for split, (name, *values) in zip(dataset.splits, numbers, strict=True):
            rows.append((name, split, *(f"{value:.6g}" for value in values)))
    terminal.tabulate(("number", "split", "min", "mean", "std", "max"), rows, texts=2)


def _print_targets(
    train: Images, heads: Sequence[str], rows: Sequence[Sequence[str]], top: int, terminal: Terminal
) -> None:
    """Print the images of each target; if there are many, the most and the least frequent."""
    *targets, total = rows
    counts = list(train.target_counts().values())
    shown = list(range(len(targets)))
    if len(targets) > 2 * top:
        ranked = sorted(shown, key=lambda row: -counts[row])
        shown = ranked[:top] + ranked[-top:]
    terminal.tabulate(heads, [*(targets[row] for row in shown), total])
    more = len(targets) - len(shown)
    if more:
        terminal.say(
            f"and {more:,} more targets: these have the most and the fewest training images"
            " (--top N, --json)"
        )


def print_sizes(sizes: SizeSummary, terminal: Terminal) -> None:
    if sizes.sizes == 1:
        ((height, width, count),) = sizes.common
        terminal.say(f"original size: {height}×{width} ({plural(count, 'image', 'images')})")
        return
    for what, place in (("heights", 0), ("widths", 1)):
        low = sizes.smallest_px[place]
        high = sizes.largest_px[place]
        middle = sizes.median_px[place]
        terminal.say(f"{what}: {low} to {high} px, median {middle:.0f}")
    common = ", ".join(f"{height}×{width} ({count:,})" for height, width, count in sizes.common)
    terminal.say(f"sizes (height×width): {sizes.sizes:,}, most often {common}")


def _print_finding(finding: Finding, terminal: Terminal) -> None:
    terminal.say(f"{finding.severity}: {finding.message}")
    for place, sighting in enumerate(finding.images[:EXAMPLES]):
        twin = ""
        if finding.twins:
            twin = f" = {_name(finding.twins[place], finding)}"
        terminal.say(f"    {_name(sighting, finding)}{twin}")
    if len(finding.images) > EXAMPLES:
        terminal.say(f"    and {len(finding.images) - EXAMPLES:,} more")


def _name(sighting: Sighting, finding: Finding) -> str:
    """An image's file name, with its split (unless in the name) and, for conflicts, its target."""
    remarks: list[str] = []
    if sighting.split is not None and not sighting.name.lower().startswith(f"{sighting.split}/"):
        remarks.append(sighting.split)
    if finding.kind == "conflict":
        remarks.append(str(sighting.target))
    if not remarks:
        return sighting.name
    return f"{sighting.name} ({': '.join(remarks)})"


def _to_json(dataset: Dataset, inspection: Inspection) -> Mapping[str, Any]:

    def list_images(sightings: Sequence[Sighting]) -> list[dict[str, Any]]:
        return [sighting._asdict() for sighting in sightings]

    sizes = None
    if inspection.sizes is not None:
        sizes = fields_to_json(inspection.sizes)
    findings = []
    for finding in inspection.findings:
        images = list_images(finding.images)
        twins = list_images(finding.twins)
        more = {"message": finding.message, "images": images, "twins": twins}
        findings.append(fields_to_json(finding) | more)
    return {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        **fields_to_json(dataset.corrections),
        "shape": dataset.train.shape,
        "images": {split: len(images) for split, images in dataset.splits.items()},
        "counts": {split: images.target_counts() for split, images in dataset.splits.items()},
        "numbers": {
            split: [spread._asdict() for spread in measure_spread(images)]
            for split, images in dataset.splits.items()
        },
        "imbalance_ratio": imbalance(dataset.train),
        "sizes": sizes,
        "split_rule": dataset.split_rule,
        "problems": [
            {"image": problem.path, "reason": problem.reason} for problem in dataset.problems
        ],
        "duplicates": [list_images(group) for group in inspection.duplicates],
        "findings": findings,
    }
