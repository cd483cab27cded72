"""lamina embed: save the features of images as NumPy arrays."""

from __future__ import annotations

from functools import partial

import numpy as np

from lamina.cli.models import choose_evaluated_data, load_predictor
from lamina.cli.options.inspect_options import EmbedOptions
from lamina.cli.output import check_output, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.load import ClassMatch
from lamina.files import open_atomically
from lamina.training.features import features


def run(options: EmbedOptions, terminal: Terminal) -> int:
    check_output(options.output, (".npz",))
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    dataset, _ = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, ClassMatch(unknown="keep")
    )
    splits = [images for images in dataset.splits.values() if len(images)]
    with terminal.progress(QUIET_SECONDS) as show_progress:
        found = [
            features(predictor.model, images.pixels, partial(show_progress, f"embedding {images.split}")).numpy()
            for images in splits
        ]
    arrays = {
        "features": np.concatenate(found),
        "names": np.array([name for images in splits for name in images.names], np.str_),
        "splits": np.repeat([images.split for images in splits], list(map(len, splits))),
        "targets": np.concatenate([images.targets for images in splits]),
        "target_names": np.array(dataset.train.target_names, np.str_),
    }
    with writing(options.output), open_atomically(options.output) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    images, size = arrays["features"].shape
    terminal.say(f"{options.output}: {size:,} features of {images:,} images")
    terminal.emit("embedded", file=str(options.output), images=images, features=size)
    return 0
