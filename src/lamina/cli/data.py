"""lamina data: show what a data set contains, and its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lamina.cli.data_argument import choose_data
from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import check_issues_file, save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images, Preparation
from lamina.data.cache import cache_folder, format_size, list_cached
from lamina.data.findings import Finding, Sighting, imbalance
from lamina.data.held_out import advise_folds
from lamina.data.inspection import Inspection, SizeSummary, inspect, measure_spread
from lamina.data.load import EXAMPLES, full_source
from lamina.errors import DataError, plural, suggest
from lamina.targets import REGRESSION
from lamina.values import fields_to_json

TARGETS_SHOWN = 10  # of many targets: those with the most images, and those with the fewest


def run(options: DataOptions, terminal: Terminal) -> int:
    _check(options)
    if options.cache or options.cache_clear:
        return _show_cache(options.data, terminal, is_cleared=options.cache_clear)
    if options.data is None:
        raise DataError(
            "No data set given. Add a folder, archive, table or array file, or a name such as"
            " cifar10."
        )
    if options.run is not None:
        from lamina.cli.mistakes import judge_by_run

        dataset = judge_by_run(options.run, options, terminal)
    else:
        dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    if options.labels:
        from lamina.cli.label_issues import judge_by_folds

        judge_by_folds(dataset, options, terminal)
    if options.duplicates:
        from lamina.cli.near_duplicates import list_duplicates

        list_duplicates(dataset, options, terminal)
    is_alone = not (options.labels or options.run or options.duplicates)
    if is_alone:
        _inspect(dataset, options, terminal)
    if options.contact_sheet is not None:
        from lamina.drawing.contact_sheet import build_contact_sheet

        images = next(images for images in dataset.splits.values() if len(images))
        save_sheet(build_contact_sheet(images, options.samples), options.contact_sheet)
        terminal.remark(f"contact sheet: {options.contact_sheet}")
    elif is_alone:
        terminal.remark("To draw samples of each class, use --contact-sheet FILE.png.")
    return 0


def _show_cache(data: str | None, terminal: Terminal, *, is_cleared: bool) -> int:
    """List or remove decoded copies of data sets; the exit status is 2 if one cannot be removed."""
    every = list_cached()
    copies = [copy for copy in every if data is None or copy.source in (data, full_source(data))]
    if data is not None and not copies:
        hint = (
            suggest(data, sorted({copy.source for copy in every}))
            if every
            else "It has none at all."
        )
        raise DataError(f"The cache has no decoded copy of {data}. {hint}")
    total_bytes = sum(copy.size_bytes for copy in every)
    rows: list[tuple[str, ...]] = []
    values: list[dict[str, Any]] = []
    for copy in copies[::-1]:
        state = (
            copy.state if not is_cleared else "removed" if copy.remove() else "in use or protected"
        )
        total_bytes -= copy.size_bytes * (state == "removed")
        images, height, width, *_ = (*copy.shape, 0, 0, 0)
        size = format_size(copy.size_bytes)
        rows.append((copy.source, state, copy.last_used, f"{images:,}", f"{height}×{width}", size))
        values.append(fields_to_json(copy) | {"folder": str(copy.folder), "state": state})
    terminal.tabulate(
        ("data set", "state", "last used", "images", "height×width", "size"), rows, texts=3
    )
    terminal.say(f"all copies: {format_size(total_bytes)} in {cache_folder()}")
    terminal.emit("cache", folder=str(cache_folder()), bytes=total_bytes, copies=values)
    return 2 if any(one["state"] == "in use or protected" for one in values) else 0


def _check(options: DataOptions) -> None:
    does_more = (
        options.labels
        or options.duplicates
        or options.run is not None
        or options.contact_sheet is not None
    )
    if (does_more or options.preparation) and (options.cache or options.cache_clear):
        raise DataError("--cache and --cache-clear read no images. Leave out the other options.")
    if options.labels and options.run is not None:
        raise DataError(
            "--labels trains new nets, but --with uses the model of a run. Use only one of them."
        )
    if options.net is not None and options.run is None:
        raise DataError("--net defines the net of a run, but there is no run. Add --with RUN.")
    if not options.pretrained and not options.labels:
        raise DataError("--no-pretrained applies to the nets that --labels trains. Add --labels.")
    if options.output and not options.labels and options.run is None:
        raise DataError("--output saves label issues. Add --labels or --with RUN to find them.")
    if options.groups is not None and (
        not options.duplicates or options.groups.suffix.lower() != ".csv"
    ):
        raise DataError(
            "--groups saves near-duplicates as a .csv file. Use --duplicates --groups groups.csv."
        )
    if options.hard is not None and options.run is None:
        raise DataError("--hard draws images that are hard for the model of a run. Add --with RUN.")
    for flag, count in (("--samples", options.samples), ("--top", options.top)):
        if count < 1:
            raise DataError(f"{flag} is {count}; it must be at least 1. Use {flag} 10.")
    for output in options.output:
        check_issues_file(output)
    for flag, file in (("--contact-sheet", options.contact_sheet), ("--hard", options.hard)):
        if file is not None and file.suffix.lower() != ".png":
            raise DataError(
                f"{flag} is {file}; it must end in .png. Use {flag} {file.with_suffix('.png')}."
            )


def _inspect(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    with terminal.progress(QUIET_SECONDS) as show_progress:
        inspection = inspect(dataset, partial(show_progress, "inspecting images"))
    _print_summary(dataset, inspection, terminal)
    if advice := advise_folds(dataset):
        terminal.remark(f"advice: {advice}")
    sheet = options.contact_sheet
    terminal.emit(
        "data", **_to_json(dataset, inspection), contact_sheet=None if sheet is None else str(sheet)
    )


def _print_summary(dataset: Dataset, inspection: Inspection, terminal: Terminal) -> None:
    splits = dataset.splits
    images, *targets = dataset.count_rows()
    if dataset.train.kind is REGRESSION:
        terminal.tabulate(("split", *splits), [images])
        rows = []
        for numbers in zip(*map(measure_spread, splits.values()), strict=True):
            for split, each in zip(splits, numbers, strict=True):
                name, *values = each
                rows.append((name, split, *(f"{value:.6g}" for value in values)))
        terminal.tabulate(("number", "split", "min", "mean", "std", "max"), rows, texts=2)
    else:
        _print_targets(dataset.train, ("target", *splits), [*targets, images], terminal)
    if (ratio := imbalance(dataset.train)) is not None:
        terminal.say(f"imbalance: {ratio:.3g} (size of the largest training class / smallest)")
    if inspection.sizes is not None:
        print_sizes(inspection.sizes, terminal)
    terminal.say(f"input shape: {'×'.join(map(str, dataset.train.shape))}")
    channels = inspection.channels
    mean, standard_deviation = (
        " ".join(f"{value:.1f}" for value in values)
        for values in (channels.mean, channels.standard_deviation)
    )
    total = sum(map(len, splits.values()))
    gray = f"; gray images: {channels.gray:,} of {total:,}" if len(channels.mean) == 3 else ""
    terminal.say(
        f"channels: mean {mean}; standard deviation {standard_deviation} (range 0 to 255){gray}"
    )
    terminal.say(f"fingerprint: {dataset.fingerprint}")
    severities = Counter(finding.severity for finding in inspection.findings)
    found = ", ".join(
        f"{count} {severity}{'s' * (count > 1)}" for severity, count in severities.items()
    )
    terminal.say("", f"problems: {found or 'none'}")
    for finding in inspection.findings:
        _print_finding(finding, terminal)


def _print_targets(
    train: Images, heads: Sequence[str], rows: Sequence[Sequence[str]], terminal: Terminal
) -> None:
    """The images of each target; of many, those with the most and the fewest training images."""
    *targets, total = rows
    counts = list(train.target_counts().values())
    shown = list(range(len(targets)))
    if len(targets) > 2 * TARGETS_SHOWN:
        ranked = sorted(shown, key=lambda row: -counts[row])
        shown = ranked[:TARGETS_SHOWN] + ranked[-TARGETS_SHOWN:]
    terminal.tabulate(heads, [*(targets[row] for row in shown), total])
    if more := len(targets) - len(shown):
        terminal.say(
            f"and {more:,} more targets: these have the most and the fewest training images"
            " (--json lists all)"
        )


def print_sizes(sizes: SizeSummary, terminal: Terminal) -> None:
    if sizes.sizes == 1:
        ((height, width, count),) = sizes.common
        terminal.say(f"original size: {height}×{width} ({plural(count, 'image', 'images')})")
        return
    for what, place in (("heights", 0), ("widths", 1)):
        low, middle, high = (
            each[place] for each in (sizes.smallest_px, sizes.median_px, sizes.largest_px)
        )
        terminal.say(f"{what}: {low} to {high} px, median {middle:.0f}")
    common = ", ".join(f"{height}×{width} ({count:,})" for height, width, count in sizes.common)
    terminal.say(f"sizes (height×width): {sizes.sizes:,}, most often {common}")


def _print_finding(finding: Finding, terminal: Terminal) -> None:
    terminal.say(f"{finding.severity}: {finding.message}")
    for place, sighting in enumerate(finding.images[:EXAMPLES]):
        twin = f" = {_name(finding.twins[place], finding)}" if finding.twins else ""
        terminal.say(f"    {_name(sighting, finding)}{twin}")
    if len(finding.images) > EXAMPLES:
        terminal.say(f"    and {len(finding.images) - EXAMPLES:,} more")


def _name(sighting: Sighting, finding: Finding) -> str:
    """An image's file name, with its split if not in the name; its target if targets conflict."""
    remarks: list[str] = []
    if sighting.split is not None and not sighting.name.lower().startswith(f"{sighting.split}/"):
        remarks.append(sighting.split)
    if finding.kind == "conflict":
        remarks.append(str(sighting.target))
    return f"{sighting.name} ({': '.join(remarks)})" if remarks else sighting.name


def _to_json(dataset: Dataset, inspection: Inspection) -> Mapping[str, Any]:
    def list_images(sightings: Sequence[Sighting]) -> list[dict[str, Any]]:
        return [sighting._asdict() for sighting in sightings]

    return {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        **fields_to_json(dataset.corrections),
        "shape": dataset.train.shape,
        "bit_depth": dataset.bit_depth,
        "images": {split: len(images) for split, images in dataset.splits.items()},
        "counts": {split: images.target_counts() for split, images in dataset.splits.items()},
        "numbers": {
            split: [spread._asdict() for spread in measure_spread(images)]
            for split, images in dataset.splits.items()
        },
        "imbalance_ratio": imbalance(dataset.train),
        "sizes": None if inspection.sizes is None else fields_to_json(inspection.sizes),
        "channels": fields_to_json(inspection.channels),
        "split_rule": dataset.split_rule,
        "problems": [
            {"image": problem.path, "reason": problem.reason} for problem in dataset.problems
        ],
        "duplicates": [list_images(group) for group in inspection.duplicates],
        "findings": [
            fields_to_json(finding)
            | {
                "images": list_images(finding.images),
                "twins": list_images(finding.twins),
            }
            for finding in inspection.findings
        ],
    }
