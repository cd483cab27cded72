"""lamina export: a run's model as a file that other programs read, proven to answer as the run does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.choices import choose_run_data, open_predictor
from lamina.cli.options import parse_options
from lamina.cli.session import end_on_sigterm
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.errors import DataError

SUFFIXES: dict[str, Literal["onnx", "pt2"]] = {".onnx": "onnx", ".pt2": "pt2"}


@dataclass(frozen=True)
class Options:
    """Export a run's model, with its preprocessing inside, and prove that it answers as the run does."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the run's folder"""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """the file to write"""
    to: Annotated[Literal["auto", "onnx", "pt2"], tyro.conf.arg(metavar="TO")] = "auto"
    """onnx, or pt2 for torch.export; auto goes by the file's ending"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """where the run's data set is now, if it has moved; its pictures are what the answers are compared on"""
    net: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """file.py[:NAME] that makes your own module; a run stores only its weights"""
    json: bool = False
    """print the certificate as a JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "export", arguments)
    file = options.file
    file_format = SUFFIXES.get(file.suffix.lower()) if options.to == "auto" else options.to
    if file_format is None:
        raise DataError(f"The file was {file}, but must end in .onnx or .pt2. Another ending needs --to.")
    if SUFFIXES.get(file.suffix.lower(), file_format) != file_format:
        raise DataError(f"The file was {file}, but --to {file_format} is another format. Rename it, or leave out --to.")
    if not file.parent.is_dir():
        raise DataError(f"The file was {file}, but there is no folder {file.parent}. Create it first.")
    from lamina.deploy.certificate import certify
    from lamina.deploy.export import describe_model, export_onnx, export_pt2
    from lamina.files import write_atomically, write_json
    from lamina.runs.run import load_run

    terminal = Terminal(as_json=options.json)
    run = load_run(options.run)
    predictor = open_predictor(run, options.net, "cpu", terminal)
    dataset = choose_run_data(run, options.data, terminal)
    images = dataset.test or dataset.val or dataset.train
    with end_on_sigterm(), terminal.progress(QUIET_SECONDS) as show_progress:
        show_progress("exporting", 0, 2)
        export = export_onnx if file_format == "onnx" else export_pt2
        content = export(predictor.model, predictor.resize)
        show_progress("comparing", 1, 2)
        certificate = certify(content, file_format, predictor.model, images)
    proof = file.with_name(f"{file.name}.json")
    try:
        proof.unlink(missing_ok=True)  # of an earlier file
        write_atomically(file, content)
        described = describe_model(predictor.model, predictor.resize)
        write_json(proof, {"run": str(options.run), "data": dataset.fingerprint, **asdict(certificate), **described})
    except OSError as error:
        raise DataError(f"Cannot write {file}: {error.strerror or error}. Give another file.") from error
    terminal.say(f"{file}: {len(content) / 1e6:.1f} MB, {certificate}", f"certificate: {proof}")
    terminal.emit("export", run=str(options.run), file=str(file), bytes=len(content), **asdict(certificate))
    return 0
