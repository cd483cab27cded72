"""lamina report: one self-contained page about a run, or a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lamina.cli.choices import choose_run_data, make_module
from lamina.cli.options import parse_options
from lamina.cli.terminal import Terminal
from lamina.errors import DataError, LaminaError, RunError

if TYPE_CHECKING:
    from lamina.data import Dataset
    from lamina.runs.run import Run
    from lamina.training.model import Model


@dataclass(frozen=True)
class Options:
    """Write one self-contained HTML page about a run: figures, pictures, findings, and how to reproduce it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[OUT]", help_behavior_hint="")] = None
    """file to write; by default report.html in the run's folder, or README.md with --card"""
    card: bool = False
    """write a model card in Markdown instead, with the metadata of Hugging Face; an existing file is kept"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """where the run's data set is now, if it has moved"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] that makes your own module; a run stores only its weights"""
    json: bool = False
    """print one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "report", arguments)
    from lamina.runs.run import load_run

    terminal = Terminal(as_json=options.json)
    run = load_run(options.run)
    if options.card:
        file = options.file or run.path / "README.md"
        text = _build_card(run, file, options)
    else:
        file = options.file or run.path / "report.html"
        text = _build_page(run, options, terminal)
    _write(file, text)
    size = len(text.encode())
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    terminal.say(f"{'model card' if options.card else 'report'}: {file} ({shown})")
    if options.card:
        terminal.remark("license is unknown, and its intended use is left open: complete both by hand")
    terminal.emit("card" if options.card else "page", file=str(file), bytes=size)
    return 0


def _build_page(run: Run, options: Options, terminal: Terminal) -> str:
    from lamina.deploy.report_page import build_report_page

    dataset = _find_data(run, options.data, terminal)
    return build_report_page(run, dataset, _find_model(run, options.net, terminal))


def _find_data(run: Run, source: str | None, terminal: Terminal) -> Dataset | None:
    """The run's data set; ``None``, with a remark, where it is no longer there or has changed."""
    try:
        dataset = choose_run_data(run, source, terminal)
    except DataError as error:
        if source is not None:
            raise
        terminal.remark(f"no pictures: {error}")
        return None
    if dataset.fingerprint == run.record.data.fingerprint:
        return dataset
    if source is not None:
        raise DataError(
            f"{source} is not the data that {run.path} was trained on (fingerprint {dataset.fingerprint}, was "
            f"{run.record.data.fingerprint}). Give its new place, or leave out --data for a page without pictures."
        )
    terminal.remark("no pictures: the data set has changed since the run was trained")
    return None


def _find_model(run: Run, net: str | None, terminal: Terminal) -> Model | None:
    """The run's model on the CPU; ``None``, with a remark, where it cannot be loaded."""
    module = make_module(run, net, terminal)
    try:
        return run.load_model(module)
    except LaminaError as error:
        if net is not None:
            raise
        terminal.remark(f"the page will not show what the layers see: {error}")
        return None


def _build_card(run: Run, file: Path, options: Options) -> str:
    from lamina.deploy.card import build_card

    given = [flag for flag, value in (("--data", options.data), ("--net", options.net)) if value is not None]
    if given:
        raise RunError(f"A model card needs neither data nor model. Leave out {' and '.join(given)}.")
    if file.exists():
        raise RunError(f"{file} exists, and may have been edited by hand. Delete it, or name another file.")
    return build_card(run)


def _write(file: Path, text: str) -> None:
    from lamina.files import write_atomically

    try:
        write_atomically(file, text)
    except OSError as error:
        raise DataError(f"Cannot write {file}: {error.strerror or error}. Name another file after the run.") from error
