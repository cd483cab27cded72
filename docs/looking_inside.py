"""Run the commands of looking-inside.md and draw its images again.

    python docs/looking_inside.py                  # docs/images/*.png
    python docs/looking_inside.py --write-data .   # only the data sets of the tutorial

The first command takes about two minutes on one core, and writes runs and data to a temporary
folder. The page quotes what the commands print. Results differ slightly between types of processor.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lamina import load_run
from lamina.cli import main as run_command
from lamina.data import Images
from lamina.data.sources.drawn import draw_shapes
from lamina.drawing.style import save_figure

IMAGES = Path(__file__).parent / "images"
WIDEST_PX = 1200
INCORRECT_LABELS_FRACTION = 0.03
COPIES = 5
TRIAL_IMAGES = 40


def run(command: str) -> None:
    """Print a command as a reader types it, and run it."""
    print(f"\n$ {command}", flush=True)
    status = run_command(shlex.split(command)[1:])
    if status != 0:
        raise SystemExit(status)


def save_image(drawn: str, folder: Path, name: str) -> None:
    """Save an image for the page, at most ``WIDEST_PX`` wide and with 256 colors."""
    with Image.open(drawn) as opened:
        image = opened.convert("RGB")
    if image.width > WIDEST_PX:
        image = image.resize(
            (WIDEST_PX, round(image.height * WIDEST_PX / image.width)), Image.Resampling.LANCZOS
        )
    # This method keeps rare colors, such as the few blue pixels of a map.
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(folder / f"{name}.png", optimize=True)


def save_curves(run_name: str, folder: Path, name: str) -> None:
    """Save the learning curves of a run, with its layers."""
    drawn = Path(run_name).with_suffix(".png")
    save_figure(load_run(f"runs/{run_name}").plot(), drawn)
    save_image(str(drawn), folder, name)


def write_folder(images: Images, folder: str, targets: np.ndarray | None = None) -> None:
    """Write images into class folders, by ``targets`` if given, else by their own labels."""
    for row, target in enumerate(images.targets if targets is None else targets):
        file = Path(folder, images.target_names[target], f"{row:04}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[row]).save(file)


def exchange_labels(images: Images, fraction: float, seed: int = 0) -> Images:
    """Exchange the labels of a fraction of the images at random, for different ones if possible."""
    random = np.random.default_rng(seed)
    targets = np.array(images.targets)
    rows = random.choice(len(targets), max(2, round(fraction * len(targets))), replace=False)
    before = targets[rows]
    after = random.permutation(before)
    for place in np.flatnonzero(after == before):
        partners = np.flatnonzero((after != before[place]) & (before != after[place]))
        if after[place] == before[place] and len(partners):
            partner = random.choice(partners)
            after[[place, partner]] = after[[partner, place]]
    targets[rows] = after
    return dataclasses.replace(images, targets=targets)


def write_faulty(images: Images, folder: str) -> None:
    """Write images, some with an incorrect label, and translated, mirrored copies of a few."""
    flipped = exchange_labels(images, INCORRECT_LABELS_FRACTION)
    incorrect = int((flipped.targets != images.targets).sum())
    write_folder(images, folder, flipped.targets)
    for row in range(COPIES):
        copy = np.roll(images.pixels[row], (1, 2), axis=(0, 1))[:, ::-1]
        Image.fromarray(copy).save(
            Path(folder, images.target_names[flipped.targets[row]], f"copy-{row}.png")
        )
    print(
        f"\n{folder}: {len(images)} images, {incorrect} with an incorrect label, and {COPIES}"
        " mirrored copies"
    )


def write_data(is_trial: bool) -> None:
    """Write the folders ``few`` and ``faulty``."""
    write_folder(draw_shapes("shapes", "train", TRIAL_IMAGES if is_trial else 600, seed=3), "few")
    write_faulty(
        draw_shapes("shapes", "train", TRIAL_IMAGES if is_trial else 500, seed=4), "faulty"
    )


def make_images(folder: Path, is_trial: bool) -> None:
    """Run the commands of the page and save its images."""
    write_data(is_trial)
    data = "few" if is_trial else "shapes"

    run(f"lamina train cnn-s --data {data} --epochs {1 if is_trial else 3} --name shapes")
    run("lamina inspect runs/shapes")
    save_image("runs/shapes/inspection/probes.png", folder, "probes")
    save_image("runs/shapes/inspection/layer-02-whiten-relu.png", folder, "first-filters")
    save_image("runs/shapes/inspection/layer-16-conv2d-relu.png", folder, "units")
    save_curves("shapes", folder, "layers")

    run(f"lamina train mlp --data {data} --epochs {1 if is_trial else 4} --lr 0.1 --name too-high")
    save_curves("too-high", folder, "too-high")

    run(f"lamina train mlp --data few --lr 0.001 --epochs {2 if is_trial else 20} --name few")
    save_curves("few", folder, "overfitting")

    image = sorted(Path("few").rglob("*.png"))[-1]
    run(f"lamina explain runs/shapes {image}")
    save_image(f"runs/shapes/explanations/{image.stem}-explained.png", folder, "explained")

    run("lamina data labels faulty --with runs/shapes --output label-issues.png --top 5")
    save_image("label-issues.png", folder, "label-issues")
    run("lamina data duplicates faulty --top 5")


def main() -> None:
    """Parse the arguments, then draw the images or write the data."""
    parser = argparse.ArgumentParser(description="Draw the images of docs/howto/looking-inside.md.")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder for the images")
    parser.add_argument(
        "--trial", action="store_true", help="use few images, for a test that takes seconds"
    )
    parser.add_argument(
        "--write-data", type=Path, metavar="FOLDER", help="only write the data sets, to this folder"
    )
    arguments = parser.parse_args()
    if arguments.write_data is not None:
        with contextlib.chdir(arguments.write_data):
            write_data(arguments.trial)
        return
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("COLUMNS", "110")
    with tempfile.TemporaryDirectory() as workplace, contextlib.chdir(workplace):
        make_images(folder, arguments.trial)


if __name__ == "__main__":
    main()
