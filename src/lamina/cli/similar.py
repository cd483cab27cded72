"""lamina similar: find the training images whose features are most similar to an image's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8

from lamina.cli.models import choose_images, choose_run_data, load_predictor
from lamina.cli.options.inspect_options import SimilarOptions
from lamina.cli.output import check_output, save_sheet
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.image_inputs import decode_ahead
from lamina.data.thumbnails import make_tile
from lamina.errors import DataError
from lamina.insight.similarity import find_neighbors, normalize
from lamina.text import shorten
from lamina.training.prediction import predict_with_features

DRAWN_IMAGES, TILE_PX = 200, 96
Drawn: TypeAlias = tuple[str, Sequence[UInt8[np.ndarray, "h w c"]], Sequence[tuple[str, str]]]
"""The name of an image, it and the images similar to it, and the captions of these."""


def run(options: SimilarOptions, terminal: Terminal) -> int:
    """Run the command; returns 2 if an image could not be read, after comparing the others."""
    if options.top < 1:
        raise DataError(f"--top is {options.top}; it must be at least 1. Use --top 6.")
    if options.output is not None:
        check_output(options.output, (".png",))
    drawn: list[Drawn] = []
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        images, problems = choose_images(options.images, stack, terminal)
        torch.set_num_threads(threads)  # the training images are more than these
        run, predictor = load_predictor(options.run, options.net, options.device, terminal)
        dataset, model = choose_run_data(run, options.data, terminal), predictor.model
        train, what = dataset.train, "training image"
        if dataset.fingerprint != run.record.data.fingerprint:
            what = f"image of {dataset.name}"
            terminal.remark(
                f"warning: {dataset.name} is not, or no longer, the data set that the run was"
                " trained on"
            )
        with terminal.progress(QUIET_SECONDS) as show_progress:
            known = normalize(
                predict_with_features(model, train.pixels, partial(show_progress, "embedding"))[1]
            )
        add = stack.enter_context(terminal.table(("image", what, "target", "similarity"), texts=3))
        unread = [(problem.path, problem.reason) for problem in problems]
        chunks = stack.enter_context(closing(decode_ahead(images, predictor.input_format)))
        for chunk in chunks:
            features = known[:0]
            if len(chunk.pixels):  # unless no image of the chunk can be read
                features = normalize(predict_with_features(model, chunk.pixels)[1])
            cosines, rows = find_neighbors(features, known, options.top)
            found = zip(chunk.pixels, cosines.tolist(), rows.tolist(), strict=True)
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is not None:
                    unread.append((name, reason))
                    continue
                pixels, *nearest = next(found)
                similar = []
                for value, row in zip(*nearest, strict=True):
                    target = train.kind.format(train.targets[row], train.target_names)
                    add((name, train.names[row], target, f"{value:.3f}"))
                    similar.append(
                        {"image": train.names[row], "target": target, "similarity": round(value, 4)}
                    )
                terminal.emit("similar", image=name, similar=similar)
                if options.output is not None and len(drawn) < DRAWN_IMAGES:
                    captions = [
                        (shorten(one["target"]), f"{one['similarity']:.2f}") for one in similar
                    ]
                    drawn.append((Path(name).name, [pixels, *train.pixels[nearest[1]]], captions))
    for name, reason in unread:
        terminal.emit("problem", image=name, reason=reason)
        terminal.remark(f"lamina: {name}: {reason}")
    if options.output is not None and drawn:
        more = len(images) + len(problems) - len(unread) - len(drawn)
        title = (
            f"the most similar {what.replace('image', 'images', 1)} by the features of"
            f" {run.path.name}"
        )
        _save_drawn(drawn, title, f"and {more:,} more, not drawn" * (more > 0), options.output)
        terminal.remark(f"similar images: {options.output}")
    return 2 if unread else 0


def _save_drawn(drawn: Sequence[Drawn], title: str, rest: str, file: Path) -> None:
    from lamina.drawing.sheets import SheetRow, lay_out  # loads matplotlib

    rows = [
        SheetRow(
            [make_tile(each, TILE_PX) for each in images], [("", ""), *captions], shorten(name)
        )
        for name, images, captions in drawn
    ]
    save_sheet(lay_out(rows, title, rest=rest), file)
