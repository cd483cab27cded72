"""lamina explain: maps of the pixels that a prediction depends on, and how faithful they are."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from lamina.cli.models import choose_images, choose_layer, load_predictor, report_problem
from lamina.cli.options.inspect_options import ExplainOptions
from lamina.cli.output import make_folder, save_sheet, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Problem
from lamina.data.decoding import EncodedImage, ImageReader, InputFormat, decode_image
from lamina.data.image_inputs import decode_ahead
from lamina.data.resizing import seen_box
from lamina.drawing.attribution_sheet import Box, draw_explanation
from lamina.errors import NetError
from lamina.evaluation.predictor import describe
from lamina.files import open_atomically
from lamina.insight.explanations import (
    METHODS,
    Explanation,
    choose_methods,
    explain_pixels,
    find_output,
)

STEM_BYTES = 200  # file systems allow names of 255 bytes, and writing atomically adds to them


def run(options: ExplainOptions, terminal: Terminal) -> int:
    """Run the command; returns 2 if an image could not be read, after explaining the others."""
    with ExitStack() as stack:
        images, problems = choose_images(options.images, stack, terminal)
        return _explain_images(options, images, problems, terminal)


def _explain_images(
    options: ExplainOptions,
    images: list[EncodedImage],
    problems: list[Problem],
    terminal: Terminal,
) -> int:
    if options.layer is not None and options.method not in (None, "grad-cam"):
        raise NetError(
            f"--layer is {options.layer!r}, but {options.method} does not use a layer. Use --method"
            " grad-cam."
        )
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    target = None
    if options.target is not None:
        target = find_output(model.task, options.target)
    layer = None
    if options.layer is not None:
        layer = choose_layer(model, options.layer)
    methods = choose_methods(model, options.method, layer)
    if options.method is None and len(methods) < len(METHODS):
        terminal.remark(
            "grad-cam: skipped, because no layer of this net has an output with height and width"
        )
    folder = options.output or run.path / "explanations"
    for problem in problems:
        report_problem(problem.path, problem.reason, terminal)
    unread = len(problems)
    used: set[str] = set()
    with terminal.progress(QUIET_SECONDS) as show_progress:
        for done, encoded in enumerate(images):
            show_progress("explaining", done, len(images))
            (chunk,) = decode_ahead([encoded], predictor.input_format)
            path = chunk.names[0]
            reason = chunk.reasons[0]
            if reason is not None:
                report_problem(path, reason, terminal)
                unread += 1
                continue
            make_folder(folder)  # not earlier: if no image can be read, no empty folder remains
            explanation = explain_pixels(model, chunk.pixels, methods, target=target, name=path)
            file = _name_file(folder, Path(path), used)
            original, box = _read_image(encoded, predictor.input_format)
            save_sheet(draw_explanation(explanation, original, box), file)
            _save_maps(file.with_suffix(".npz"), explanation, box)
            _print(explanation, file, terminal)
    return 2 if unread else 0


def _print(explanation: Explanation, file: Path, terminal: Terminal) -> None:
    values = explanation.to_json()
    predicted = describe(explanation.prediction)
    terminal.say(
        f"{values['image']}: {predicted}; {file} shows the evidence for {explanation.target}"
    )
    for method, attribution in explanation.maps.items():
        terminal.say(f"  {method}: {attribution.faithfulness}")
        terminal.emit(
            "explanation",
            image=values["image"],
            predicted=values["predicted"],
            method=method,
            file=str(file),
            target=values["target"],
            **values["maps"][method],
        )


def _name_file(folder: Path, image: Path, used: set[str]) -> Path:
    """The file for an image's figure, named after it, with a number if the name is taken."""
    stem = image.stem.encode("utf-8", "surrogateescape")[:STEM_BYTES].decode("utf-8", "ignore")
    name = f"{stem}-explained"
    number = 1
    while name in used:
        number += 1
        name = f"{stem}-explained-{number}"
    used.add(name)
    return folder / f"{name}.png"


def _read_image(
    encoded: EncodedImage, wanted: InputFormat
) -> tuple[UInt8[np.ndarray, "h w c"], Box]:
    """The original image, and the box that the model sees: left, top, right, bottom in pixels."""
    channels, height, width = wanted.shape
    with ImageReader() as reader:
        data = reader.read(encoded)
    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    image = decode_image(data, mode=mode, bit_depth=wanted.bit_depth)
    return image, seen_box((image.shape[1], image.shape[0]), (height, width), wanted.resize)


def _save_maps(file: Path, explanation: Explanation, box: Box) -> None:
    arrays = {method: attribution.values for method, attribution in explanation.maps.items()}
    with writing(file), open_atomically(file) as opened:
        # mypy matches the names with the arguments of the function
        np.savez_compressed(opened, box_px=np.array(box), **arrays)  # type: ignore[arg-type]
