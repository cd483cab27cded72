"""Makes the images of looking-inside.md, by the commands that it shows.

    python docs/looking_inside.py

It takes less than two minutes on one core. Runs and data are in a temporary folder. What the commands print, which the
document quotes, differs a little from processor to processor.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lamina.cli import main as run_command
from lamina.data import Images
from lamina.data.sources.drawn import draw_shapes
from lamina.insight.confident_learning import inject_label_errors

IMAGES = Path(__file__).parent / "images"
WIDEST_PX = 1200
WRONG_LABELS_FRACTION = 0.03
COPIES = 5
UNIT = 7
TRIAL_IMAGES = 40


def run(command: str) -> None:
    """Run a command as a reader types it, and print it before what it prints."""
    print(f"\n$ {command}", flush=True)
    status = run_command(shlex.split(command)[1:])
    if status != 0:
        raise SystemExit(status)


def keep(drawn: str, folder: Path, name: str) -> None:
    """Keep an image for the document, small enough for it."""
    with Image.open(drawn) as opened:
        image = opened.convert("RGB")
    if image.width > WIDEST_PX:
        image = image.resize((WIDEST_PX, round(image.height * WIDEST_PX / image.width)), Image.Resampling.LANCZOS)
    # Of the ways of choosing 256 colours, this one keeps rare ones: the few blue pixels of a map.
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(folder / f"{name}.png", optimize=True)


def write_folder(images: Images, folder: str, targets: np.ndarray | None = None) -> None:
    """Write images into class folders, under other labels than their own if ``targets`` are given."""
    for row, target in enumerate(images.targets if targets is None else targets):
        file = Path(folder, images.target_names[target], f"{row:04}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[row]).save(file)


def write_faulty(images: Images, folder: str) -> None:
    """Write images with some wrong labels and some copies, shifted and mirrored."""
    flipped = inject_label_errors(images, WRONG_LABELS_FRACTION)
    wrong = int((flipped.targets != images.targets).sum())
    write_folder(images, folder, flipped.targets)
    for row in range(COPIES):
        copy = np.roll(images.pixels[row], (1, 2), axis=(0, 1))[:, ::-1]
        Image.fromarray(copy).save(Path(folder, images.target_names[flipped.targets[row]], f"copy-{row}.png"))
    print(f"\n{folder}: {len(images)} images, {wrong} of them with a wrong label, and {COPIES} mirrored copies")


def make_images(folder: Path, is_trial: bool) -> None:
    """Train, look inside and keep the images; a trial does so on few images."""
    write_folder(draw_shapes("shapes", "train", TRIAL_IMAGES if is_trial else 600, seed=3), "few")
    data = "few" if is_trial else "shapes"

    run(f"lamina train cnn-s --data {data} --epochs {1 if is_trial else 3} --name shapes")
    run("lamina inspect runs/shapes")
    keep("runs/shapes/inspection/probes.png", folder, "probes")
    keep("runs/shapes/inspection/layer-02-whiten-relu.png", folder, "first-filters")
    run(f"lamina inspect runs/shapes --layer 16 --unit {UNIT}")
    keep(f"runs/shapes/inspection/layer-16-conv2d-relu-unit-{UNIT}.png", folder, "unit")
    keep("runs/shapes/curves.png", folder, "layers")

    run(f"lamina train mlp --data {data} --epochs {1 if is_trial else 4} --lr 0.1 --name too-high")
    keep("runs/too-high/curves.png", folder, "too-high")

    run(f"lamina train mlp --data few --lr 0.001 --epochs {2 if is_trial else 20} --name few")
    keep("runs/few/curves.png", folder, "overfitting")

    write_faulty(draw_shapes("shapes", "train", TRIAL_IMAGES if is_trial else 500, seed=4), "faulty")
    image = sorted(Path("few").rglob("*.png"))[-1]
    run(f"lamina explain runs/shapes {image}")
    keep(f"runs/shapes/explanations/{image.stem}-explained.png", folder, "explained")

    run("lamina data faulty --with runs/shapes --label-issues label-issues.png --top 5")
    keep("label-issues.png", folder, "label_issues")
    run("lamina data faulty --duplicates --top 5")


def main() -> None:
    """Read the arguments and make the images in a temporary folder."""
    parser = argparse.ArgumentParser(description="Make the images of docs/looking-inside.md.")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the images")
    parser.add_argument("--trial", action="store_true", help="on few images, in seconds, to see that it works")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("COLUMNS", "110")
    with tempfile.TemporaryDirectory() as workplace, contextlib.chdir(workplace):
        make_images(folder, arguments.trial)


if __name__ == "__main__":
    main()
