"""Makes images of the gallery from a run on CIFAR-10: predictions and a page of its report.

    lamina train cnn-s --recipe quick --data cifar10 --val 0.1 --epochs 4 --name cifar
    lamina report runs/cifar
    python docs/readme_images.py runs/cifar

It needs Chromium for the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from lamina import load_data, load_run
from lamina.data.thumbnails import make_tile
from lamina.drawing.sheets import break_rows, lay_out

IMAGES = Path(__file__).parent / "images" / "readme"
COLUMNS, ROWS, TILE_PX = 6, 3, 96
PAGE_PX = {"width": 1000, "height": 690}


def draw_predictions(run_path: str) -> None:
    """Draw test images with the predicted class, its probability, and a differing true class."""
    run = load_run(run_path)
    images = load_data(run.record.data.source, run.record.data.preparation).test
    rows = np.random.default_rng(1).permutation(len(images))[: COLUMNS * ROWS]
    predictions = run.predict(images.pixels[rows])
    tiles, captions = [], []
    for row, prediction in zip(rows, predictions, strict=True):
        true = images.target_names[images.targets[row]]
        predicted = prediction.predicted
        tiles.append(make_tile(images.pixels[row], TILE_PX))
        percent = f"{100 * prediction.values[predicted]:.0f} %"
        captions.append((f"{predicted} {percent}", "" if predicted == true else f"(true: {true})"))
    sheet = lay_out(break_rows(tiles, captions, COLUMNS), "predictions for test images")
    sheet.save(IMAGES / "predictions.png", optimize=True)


def capture_report(run_path: str) -> None:
    """Save the top of the report page as an image."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page(viewport=PAGE_PX, color_scheme="light")
        page.goto(Path(run_path, "report.html").resolve().as_uri())
        page.screenshot(path=IMAGES / "report-page.png")
        browser.close()


if __name__ == "__main__":
    draw_predictions(sys.argv[1])
    capture_report(sys.argv[1])
