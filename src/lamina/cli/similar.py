"""lamina similar: find the training images whose features are most similar to an image's."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from lamina.cli.models import choose_images, choose_run_data, load_predictor, report_problem
from lamina.cli.options.inspect_options import SimilarOptions
from lamina.cli.output import check_output, save_sheet, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.image_inputs import decode_ahead
from lamina.errors import DataError
from lamina.files import open_atomically
from lamina.insight.neighbors import SimilarImages, embed, find_similar
from lamina.training.prediction import features

DRAWN_IMAGES = 200


def run(options: SimilarOptions, terminal: Terminal) -> int:
    """Run the command; returns 2 if an image could not be read, after comparing the others."""
    _check(options)
    threads = torch.get_num_threads()
    drawn: list[SimilarImages] = []
    names: list[str] = []
    saved: list[Float32[np.ndarray, "_ d"]] = []
    unread = 0
    with ExitStack() as stack:
        images, problems = choose_images(options.images, stack, terminal)
        torch.set_num_threads(threads)  # the training images are more than these
        run, predictor = load_predictor(options.run, options.net, options.device, terminal)
        model = predictor.model
        dataset = choose_run_data(run, options.data, terminal)
        what = "training image"
        if dataset.fingerprint != run.record.data.fingerprint:
            what = f"image of {dataset.name}"
            terminal.remark(
                f"warning: {dataset.name} is not, or no longer, the data set that the run was"
                " trained on"
            )
        with terminal.progress(QUIET_SECONDS) as show_progress:
            searched = embed(model, dataset.train, partial(show_progress, "embedding"))
        add = stack.enter_context(terminal.table(("image", what, "target", "similarity"), texts=3))
        for chunk in stack.enter_context(closing(decode_ahead(images, predictor.input_format))):
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is not None:
                    report_problem(name, reason, terminal)
                    unread += 1
            read = [
                name
                for name, reason in zip(chunk.names, chunk.reasons, strict=True)
                if reason is None
            ]
            for similar in find_similar(model, chunk.pixels, read, searched, options.top):
                for row in similar.table()[1]:
                    add((similar.image, *row))
                terminal.emit("similar", **similar.to_json())
                if options.output is not None and len(drawn) < DRAWN_IMAGES:
                    drawn.append(similar)
            names += read
            if options.features is not None and read:
                # all features: those to search by may be sums of several
                saved.append(features(model, chunk.pixels).numpy())
    for problem in problems:
        report_problem(problem.path, problem.reason, terminal)
    if options.output is not None and drawn:
        _save_drawn(
            drawn,
            len(names) - len(drawn),
            f"{what} by the features of {run.path.name}",
            options.output,
        )
        terminal.remark(f"similar images: {options.output}")
    if options.features is not None and saved:
        _save_features(options.features, np.concatenate(saved), names, terminal)
    return 2 if unread or problems else 0


def _check(options: SimilarOptions) -> None:
    if options.top < 1:
        raise DataError(f"--top is {options.top}; it must be at least 1. Use --top 6.")
    if options.output is not None:
        check_output(options.output, (".png",))
    if options.features is not None:
        check_output(options.features, (".npz",), "--features")


def _save_drawn(drawn: list[SimilarImages], more: int, what: str, file: Path) -> None:
    from lamina.drawing.contact_sheet import build_similar_sheet  # loads matplotlib

    rest = ""
    if more:
        rest = f"and {more:,} more, not drawn"
    title = f"the most similar {what.replace('image', 'images', 1)}"
    save_sheet(build_similar_sheet(drawn, title, rest), file)


def _save_features(
    file: Path, arrays: Float32[np.ndarray, "n d"], names: list[str], terminal: Terminal
) -> None:
    with writing(file), open_atomically(file) as opened:
        np.savez(opened, features=arrays, names=np.array(names, np.str_))
    images, size = arrays.shape
    terminal.remark(f"features: {file} ({size:,} of {images:,} images)")
    terminal.emit("features", file=str(file), images=images, features=size)
