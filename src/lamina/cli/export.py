"""lamina export: write a run's model to a file, and compare its outputs with the run's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lamina.cli.models import choose_run_data, load_predictor
from lamina.cli.options import Export
from lamina.cli.output import check_output, writing
from lamina.cli.terminal import Terminal
from lamina.data import NAMES
from lamina.data.sources.published import find_download_mb
from lamina.deploy.export import check_parity, describe_model, export_onnx
from lamina.files import write_atomically, write_json


def run(options: Export, terminal: Terminal) -> int:

    file = options.file
    check_output(file, (".onnx",), "FILE")
    run, predictor = load_predictor(options.run, options.net, "cpu", terminal)
    recorded = run.record.data
    images = None
    is_known = recorded.source in NAMES or (recorded.source and Path(recorded.source).exists())
    if options.data or (is_known and not find_download_mb(recorded.source)):
        dataset = choose_run_data(run, options.data, terminal)
        images = dataset.test or dataset.val or dataset.train
    else:
        terminal.remark(
            "data: not found, so the check uses synthetic images (to use others, add --data DATA)"
        )
    with terminal.progress("exporting and comparing") as show_progress:
        show_progress(0, 2)
        content = export_onnx(predictor)
        show_progress(1, 2)
        parity = check_parity(content, predictor.model, images)
    parity_file = file.with_name(f"{file.name}.json")
    checked = {
        "run": str(run.path),
        "data": recorded.fingerprint,
        **asdict(parity),
        **describe_model(predictor),
    }
    with writing(file):
        write_atomically(file, content)
        parity_file.unlink(missing_ok=True)  # of an earlier export
        write_json(parity_file, checked)
    terminal.say(
        f"{file}: {len(content) / 1e6:.1f} MB, {parity}",
        f"numerical parity check: {parity_file}",
    )
    terminal.emit("export", run=str(run.path), file=str(file), bytes=len(content), **asdict(parity))
    return 0
