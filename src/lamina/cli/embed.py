"""lamina embed: save the features of images as NumPy arrays."""

from __future__ import annotations

import numpy as np

from lamina.cli.models import choose_evaluated_data, load_predictor
from lamina.cli.options.inspect_options import EmbedOptions
from lamina.cli.output import check_output, writing
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data.matching import ClassMatch
from lamina.files import open_atomically
from lamina.training.prediction import iter_features


def run(options: EmbedOptions, terminal: Terminal) -> int:
    check_output(options.output, (".npz",))
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    dataset, _ = choose_evaluated_data(
        run, options.data, predictor, terminal, options.preparation, ClassMatch(unknown="keep")
    )
    splits = [images for images in dataset.splits.values() if len(images)]
    total, done, found = sum(map(len, splits)), 0, []
    with terminal.progress(QUIET_SECONDS) as show_progress:
        for images in splits:
            for _, part in iter_features(predictor.model, images.pixels):
                found.append(part.numpy())
                done += len(part)
                show_progress("embedding", done, total)
    arrays = {
        "features": np.concatenate(found),
        "names": np.array([name for images in splits for name in images.names], np.str_),
        "splits": np.repeat([images.split for images in splits], list(map(len, splits))),
        "targets": np.concatenate([images.targets for images in splits]),
        "target_names": np.array(dataset.train.target_names, np.str_),
    }
    with writing(options.output), open_atomically(options.output) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    size = arrays["features"].shape[1]
    terminal.say(f"{options.output}: {size:,} features of {total:,} images")
    terminal.emit("embedded", file=str(options.output), images=total, features=size)
    return 0
