"""lamina report: write a self-contained HTML page about a run, or a model card."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options import Report
from lamina.cli.output import check_output, writing
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.data.sources.published import find_download_mb
from lamina.deploy.card import build_card
from lamina.deploy.report_page import build_report_page
from lamina.deploy.study_page import build_study_page, is_study
from lamina.errors import DataError, LaminaError, RunError
from lamina.files import write_atomically
from lamina.runs.run import Run, load_run
from lamina.training.model import Model


def run(options: Report, terminal: Terminal) -> int:

    if options.file is not None:
        check_output(options.file, (".md",) if options.card else (".html",), "FILE")
    for path in (options.run, Path("runs") / options.run):
        if (path / "run.json").exists():
            break
        if is_study(path):
            refuse(options, f"{path} is a study, which has only a page.", "card", "data", "net")
            _write(options.file or path / "report.html", build_study_page(path), terminal)
            return 0
    run = load_run(options.run)
    if not options.card:
        dataset = _find_data(run, options.data, terminal)
        page = build_report_page(run, dataset, _find_model(run, options.net, terminal))
        _write(options.file or run.path / "report.html", page, terminal)
        return 0
    refuse(options, "--card uses neither data nor net.", "data", "net")
    file = options.file or run.path / "README.md"
    if file.exists():
        raise RunError(
            f"{file} already exists, and may contain your own text. Delete it, or choose another"
            " file."
        )
    _write(file, build_card(run), terminal, "card", "model card")
    terminal.remark(
        'The license is "unknown" and the intended use is empty. Complete both by hand.'
    )
    return 0


def _write(
    file: Path, text: str, terminal: Terminal, event: str = "page", title: str = "report"
) -> None:
    with writing(file):
        write_atomically(file, text)
    size = len(text.encode())
    shown = f"{size / 1e3:.0f} kB"
    if size >= 1e6:
        shown = f"{size / 1e6:.1f} MB"
    terminal.say(f"{title}: {file} ({shown})")
    terminal.emit(event, file=str(file), bytes=size)


def _find_data(run: Run, source: str | None, terminal: Terminal) -> Dataset | None:
    """Load the run's data set; return ``None``, with a remark, if it is missing or has changed."""
    recorded = run.record.data.fingerprint
    try:
        if source is None and find_download_mb(run.record.data.source):
            raise DataError(
                f"{run.record.data.source} is not on this machine. Add --data"
                f" {run.record.data.source} to download it."
            )
        dataset = choose_run_data(run, source, terminal)
        if dataset.fingerprint == recorded:
            return dataset
        raise DataError(
            f"{dataset.name} differs from the data set that {run.path} was trained on (fingerprint"
            f" {dataset.fingerprint} instead of {recorded}). Pass the original data set with"
            " --data."
        )
    except DataError as error:
        if source is not None:
            raise
        terminal.remark(f"warning: the report will contain no images: {error}")
        return None


def _find_model(run: Run, net: str | None, terminal: Terminal) -> Model | None:
    """Load the run's model on the CPU; return ``None``, with a remark, if that fails."""
    run = add_module(run, net, terminal)
    try:
        return run.load_model()
    except LaminaError as error:
        if net is not None:
            raise
        terminal.remark(f"warning: the report will not show receptive fields: {error}")
        return None
