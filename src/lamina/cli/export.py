"""lamina export: write a run's model to a file, and compare its outputs with the run's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lamina.cli.models import choose_run_data, load_predictor
from lamina.cli.options.use_options import ExportOptions
from lamina.cli.output import writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import NAMES
from lamina.deploy.exported_model import describe_model, export_onnx
from lamina.deploy.parity import check_parity
from lamina.errors import DataError
from lamina.files import write_atomically, write_json


def run(options: ExportOptions, terminal: Terminal) -> int:
    file = options.file
    if file.suffix.lower() != ".onnx":
        raise DataError(f"FILE is {file}; it must end in .onnx. Rename it.")
    if not file.parent.is_dir():
        raise DataError(
            f"FILE is {file}, but the folder {file.parent} does not exist. Create it, or use"
            " another folder."
        )
    run, predictor = load_predictor(options.run, options.net, "cpu", terminal)
    images = None
    source = run.record.data.source
    if options.data is not None or source in NAMES or (source and Path(source).exists()):
        dataset = choose_run_data(run, options.data, terminal)
        images = dataset.test or dataset.val or dataset.train
    else:
        terminal.remark(
            "data: not found, so the check uses synthetic images (to use others, add --data DATA)"
        )
    with terminal.progress(QUIET_SECONDS) as show_progress:
        show_progress("exporting", 0, 2)
        content = export_onnx(predictor)
        show_progress("comparing", 1, 2)
        parity_check = check_parity(content, predictor.model, images)
    parity_file = file.with_name(f"{file.name}.json")
    with writing(file):
        write_atomically(file, content)
        parity_file.unlink(missing_ok=True)  # of an earlier export
        described = describe_model(predictor)
        write_json(
            parity_file,
            {
                "run": str(run.path),
                "data": run.record.data.fingerprint,
                **asdict(parity_check),
                **described,
            },
        )
    terminal.say(
        f"{file}: {len(content) / 1e6:.1f} MB, {parity_check}",
        f"numerical parity check: {parity_file}",
    )
    terminal.emit(
        "export", run=str(run.path), file=str(file), bytes=len(content), **asdict(parity_check)
    )
    return 0
