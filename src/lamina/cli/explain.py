"""lamina explain: maps of the pixels that a prediction depends on, and how faithful they are."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.image_argument import choose_images
from lamina.cli.models import load_predictor
from lamina.cli.options import Explain
from lamina.cli.output import make_folder, save_arrays, save_sheet
from lamina.cli.terminal import Terminal
from lamina.data.image_inputs import decode_ahead
from lamina.evaluation.predictions import describe
from lamina.insight.explaining import (
    METHODS,
    Explanation,
    choose_methods,
    explain_pixels,
    find_output,
)

STEM_BYTES = 200  # file systems allow names of 255 bytes, and writing atomically adds to them


def run(options: Explain, terminal: Terminal) -> int:

    images, _ = choose_images(options.images, terminal)
    _explain_images(options, images, terminal)
    return 0


def _explain_images(options: Explain, images: list[Path], terminal: Terminal) -> None:
    from lamina.drawing.explanation_sheet import build_explanation_sheet

    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    target = None
    if options.target is not None:
        target = find_output(model.task, options.target)
    methods = choose_methods(model, options.method)
    if options.method is None and len(methods) < len(METHODS):
        terminal.remark(
            "grad-cam: skipped, because no layer of this net has an output with height and width"
        )
    folder = options.output or run.path / "explanations"
    with terminal.progress("explaining") as show_progress:
        for done, path in enumerate(images):
            show_progress(done, len(images))
            (chunk,) = decode_ahead([path], predictor.input_format)
            reason = chunk.reasons[0]
            if reason is not None:
                terminal.report_problem(str(path), reason)
                continue
            make_folder(folder)  # not earlier: if no image can be read, no empty folder remains
            explanation = explain_pixels(
                model, chunk.pixels, methods, target=target, name=str(path)
            )
            file = _name_file(folder, path)
            save_sheet(build_explanation_sheet(explanation), file)
            maps = {method: found.values for method, found in explanation.maps.items()}
            save_arrays(file.with_suffix(".npz"), maps)
            _print(explanation, file, terminal)


def _print(explanation: Explanation, file: Path, terminal: Terminal) -> None:

    values = explanation.to_json()
    maps = values.pop("maps")
    predicted = describe(explanation.prediction)
    terminal.say(
        f"{values['image']}: {predicted}; {file} shows the evidence for {explanation.target}"
    )
    for method, attribution in explanation.maps.items():
        terminal.say(f"  {method}: {attribution.faithfulness}")
        terminal.emit("explanation", **values, method=method, file=str(file), **maps[method])


def _name_file(folder: Path, image: Path) -> Path:
    """The file for an image's figure, named after it, with a number if the name is taken."""
    stem = image.stem.encode("utf-8", "surrogateescape")[:STEM_BYTES].decode("utf-8", "ignore")
    file = folder / f"{stem}-explained.png"
    number = 1
    while file.exists():  # of another image with the same name, or of this one, with other options
        number += 1
        file = folder / f"{stem}-explained-{number}.png"
    return file
