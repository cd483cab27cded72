"""lamina explain: maps of the pixels that a prediction depends on, and how faithful they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from lamina.cli.models import choose_images, choose_layer, load_predictor
from lamina.cli.options.inspect_options import ExplainOptions
from lamina.cli.output import make_folder, save_sheet, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Problem
from lamina.data.decoding import EncodedImage, ImageReader, InputFormat, decode_image
from lamina.data.image_inputs import decode_ahead
from lamina.data.resizing import seen_box
from lamina.drawing.attribution_sheet import draw_attributions
from lamina.errors import DataError, NetError, NotFiniteError, suggest
from lamina.evaluation.predictor import Prediction, describe, make_prediction
from lamina.files import open_atomically
from lamina.insight.attribution import (
    CONTROL_STEPS,
    STEPS,
    choose_target,
    find_spatial_layer,
    grad_cam,
    integrated_gradients,
    occlusion,
    window_side_px,
)
from lamina.insight.faithfulness import Explain, Faithfulness, measure_faithfulness
from lamina.targets import MULTI_LABEL, SINGLE_LABEL
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Task

STEM_BYTES = 200  # file systems allow names of 255 bytes, and writing atomically adds to them
Maps: TypeAlias = dict[str, tuple[Float32[np.ndarray, "h w"], Faithfulness]]


def run(options: ExplainOptions, terminal: Terminal) -> int:
    """Run the command; returns 2 if an image could not be read, after explaining the others."""
    with ExitStack() as stack:
        return _explain_images(options, *choose_images(options.images, stack, terminal), terminal)


def _explain_images(
    options: ExplainOptions,
    images: Sequence[EncodedImage],
    problems: Sequence[Problem],
    terminal: Terminal,
) -> int:
    if options.layer is not None and options.method not in (None, "grad-cam"):
        raise NetError(
            f"--layer is {options.layer!r}, but {options.method} does not use a layer. Use --method"
            " grad-cam."
        )
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    model = predictor.model
    task = predictor.task
    wanted_format = predictor.input_format
    wanted = None if options.target is None else _find_output(task, options.target)
    methods = _choose_methods(model, options.method, options.layer, terminal)
    folder, failed = options.output or run.path / "explanations", 0

    def report(name: str, reason: str) -> None:
        nonlocal failed
        failed += 1
        terminal.emit("problem", image=name, reason=reason)
        terminal.remark(f"lamina: {name}: {reason}")

    for problem in problems:
        report(problem.path, problem.reason)
    used: set[str] = set()
    with terminal.progress(QUIET_SECONDS) as show_progress:
        for done, given in enumerate(images):
            show_progress("explaining", done, len(images))
            (((path,), pixels, (reason,)),) = decode_ahead([given], wanted_format)
            if reason is not None:
                report(path, reason)
                continue
            make_folder(folder)  # not earlier: if no image can be read, no empty folder remains
            prediction, target = _predict(model, path, pixels, wanted)
            maps = {
                name: _explain(model, pixels, target, explain, quick)
                for name, (explain, quick) in methods.items()
            }
            target_name = task.target_names[target]
            predicted = describe(prediction)
            file = _name_file(folder, Path(path), used)
            image, box = _read_image(given, wanted_format)
            save_sheet(
                draw_attributions(image, box, maps, Path(path).name, predicted, target_name), file
            )
            _save_maps(file.with_suffix(".npz"), maps, box)
            terminal.say(f"{path}: {predicted}; {file} shows the evidence for {target_name}")
            for name, (_, measured) in maps.items():
                terminal.say(f"  {name}: {measured}")
                terminal.emit(
                    "explanation",
                    image=path,
                    predicted=prediction.predicted,
                    method=name,
                    file=str(file),
                    target=target_name,
                    **asdict(measured),
                )
    return 2 if failed else 0


def _find_output(task: Task, target: str) -> int:
    if target not in task.target_names:
        what = {SINGLE_LABEL: "class", MULTI_LABEL: "label"}.get(task.kind, "target")
        raise DataError(f"The model has no {what} {target!r}. {suggest(target, task.target_names)}")
    return task.target_names.index(target)


def _choose_methods(
    model: Model, method: str | None, layer: str | None, terminal: Terminal
) -> dict[str, tuple[Explain, Explain]]:
    """The methods by name, each with a coarser, faster variant for the maps of random weights."""
    channels, height, width = model.in_shape
    side_px = window_side_px(height, width)
    found: dict[str, tuple[Explain, Explain]] = {
        "occlusion": (occlusion, partial(occlusion, stride_px=(side_px, side_px))),
        "gradients": (
            partial(integrated_gradients, steps=STEPS),
            partial(integrated_gradients, steps=CONTROL_STEPS),
        ),
    }
    if method is not None and method != "grad-cam":
        return {method: found[method]}
    black = np.zeros((1, height, width, channels), np.uint8)
    place = choose_layer(model, layer) if layer is not None else find_spatial_layer(model)
    if place is None and method is None:
        terminal.remark(
            "grad-cam: skipped, because no layer of this net has an output with height and width"
        )
        return found
    cam = partial(grad_cam, layer=place)
    # rejects an unsuitable layer before any image is explained
    cam(model, black, np.zeros(1, np.int64))
    return {**({} if method else found), "grad-cam": (cam, cam)}


def _predict(
    model: Model, name: str, pixels: UInt8[np.ndarray, "1 h w c"], wanted: int | None
) -> tuple[Prediction, int]:
    task, logits = model.task, torch.from_numpy(predict_logits(model, pixels))
    if not torch.isfinite(logits).all():
        raise NotFiniteError(
            "The model's logits contain NaN or infinity, because training diverged. Train again"
            " with a lower --lr."
        )
    target = choose_target(task, logits[0].numpy()) if wanted is None else wanted
    return make_prediction(task, name, task.probabilities(logits)[0].tolist()), target


def _explain(
    model: Model,
    pixels: UInt8[np.ndarray, "1 h w c"],
    target: int,
    explain: Explain,
    quick: Explain,
) -> tuple[Float32[np.ndarray, "h w"], Faithfulness]:
    targets = np.array([target])
    maps = explain(model, pixels, targets)
    (measured,) = measure_faithfulness(model, pixels, targets, maps, quick)
    return maps[0], measured


def _name_file(folder: Path, image: Path, used: set[str]) -> Path:
    """The file for an image's figure, named after it, with a number if the name is taken."""
    stem = image.stem.encode("utf-8", "surrogateescape")[:STEM_BYTES].decode("utf-8", "ignore")
    name, number = f"{stem}-explained", 1
    while name in used:
        number += 1
        name = f"{stem}-explained-{number}"
    used.add(name)
    return folder / f"{name}.png"


def _read_image(
    encoded: EncodedImage, wanted: InputFormat
) -> tuple[UInt8[np.ndarray, "h w c"], tuple[float, float, float, float]]:
    """The original image, and the box that the model sees: left, top, right, bottom in pixels."""
    channels, height, width = wanted.shape
    with ImageReader() as reader:
        data = reader.read(encoded)
    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    image = decode_image(data, mode=mode, bit_depth=wanted.bit_depth)
    return image, seen_box((image.shape[1], image.shape[0]), (height, width), wanted.resize)


def _save_maps(file: Path, maps: Maps, box: tuple[float, float, float, float]) -> None:
    arrays = {"box_px": np.array(box), **{name: values for name, (values, _) in maps.items()}}
    with writing(file), open_atomically(file) as opened:
        # mypy matches the names with the arguments of the function
        np.savez_compressed(opened, **arrays)  # type: ignore[arg-type]
