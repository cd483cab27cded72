"""lamina report: write a self-contained HTML page about a run, or a model card."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options.evaluate_options import ReportOptions
from lamina.cli.output import writing
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.deploy.card import build_card
from lamina.deploy.study_page import build_study_page, is_study
from lamina.errors import DataError, LaminaError, RunError
from lamina.files import write_atomically
from lamina.runs.loading import load_run
from lamina.runs.run import Run
from lamina.training.model import Model


def run(options: ReportOptions, terminal: Terminal) -> int:
    """Run the command."""
    places = options.run, Path("runs") / options.run
    found = (path for path in places if (path / "run.json").exists() or is_study(path))
    study = next(found, options.run)
    if is_study(study):
        if options.card or options.data or options.net:
            raise RunError(
                f"{study} is a study, which has only a report page. Leave out --card, --data and"
                " --net."
            )
        return _write(
            options.file or study / "report.html", build_study_page(study), "page", terminal
        )
    run = load_run(options.run)
    if options.card:
        file = options.file or run.path / "README.md"
        _check_card(file, options)
        text = build_card(run)
    else:
        from lamina.deploy.report_page import build_report_page  # loads matplotlib

        file = options.file or run.path / "report.html"
        dataset = _find_data(run, options.data, terminal)
        text = build_report_page(run, dataset, _find_model(run, options.net, terminal))
    status = _write(file, text, "card" if options.card else "page", terminal)
    if options.card:
        terminal.remark(
            'The license is "unknown" and the intended use is empty. Complete both by hand.'
        )
    return status


def _write(file: Path, text: str, what: str, terminal: Terminal) -> int:
    with writing(file):
        write_atomically(file, text)
    size = len(text.encode())
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    terminal.say(f"{'model card' if what == 'card' else 'report'}: {file} ({shown})")
    terminal.emit(what, file=str(file), bytes=size)
    return 0


def _find_data(run: Run, source: str | None, terminal: Terminal) -> Dataset | None:
    """Load the run's data set; return ``None``, with a remark, if it is missing or has changed."""
    try:
        dataset = choose_run_data(run, source, terminal)
    except DataError as error:
        if source is not None:
            raise
        terminal.remark(f"warning: the report will contain no images: {error}")
        return None
    if dataset.fingerprint == run.record.data.fingerprint:
        return dataset
    if source is not None:
        raise DataError(
            f"{source} differs from the data set that {run.path} was trained on (fingerprint"
            f" {dataset.fingerprint} instead of {run.record.data.fingerprint}). Use the original"
            " data set, or leave out --data for a report without images."
        )
    terminal.remark(
        "warning: the report will contain no images, because the data set has changed since the run"
        " was trained"
    )
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


def _check_card(file: Path, options: ReportOptions) -> None:
    given = [
        flag
        for flag, value in (("--data", options.data), ("--net", options.net))
        if value is not None
    ]
    if given:
        raise RunError(f"--card uses neither data nor net. Leave out {' and '.join(given)}.")
    if file.exists():
        raise RunError(
            f"{file} already exists, and may contain your own text. Delete it, or choose another"
            " file."
        )
