"""Draws JPEGs with the statistics of photographs: large smooth areas, edges, texture and grain."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = 10
HELD_OUT_EVERY = 10
WIDTH_PX, HEIGHT_PX = 500, 375
WORLD_PX = 1500


def draw_folder(folder: Path, count: int, seed: int = 0) -> Path:
    """Draw ``count`` images of 500×375 px into train/ and test/; equal for equal seeds."""
    for split in ("train", "test"):
        for number in range(CLASSES):
            (folder / split / f"class-{number}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as processes:
        list(processes.map(partial(write_photograph, folder, seed), range(count), chunksize=50))
    return folder


def write_photograph(folder: Path, seed: int, number: int) -> None:
    split = "test" if number // CLASSES % HELD_OUT_EVERY == 0 else "train"
    path = folder / split / f"class-{number % CLASSES}" / f"{number:05d}.jpg"
    path.write_bytes(draw_photograph(seed, number))


def draw_photograph(seed: int, number: int) -> bytes:
    """Draw a JPEG of quality 85 to 90: 1/f noise, with polygons and grain over it."""
    random = np.random.default_rng((seed, number))
    world, grain = draw_world(seed), draw_grain(seed)
    top, left = random.integers(0, WORLD_PX - HEIGHT_PX), random.integers(0, WORLD_PX - WIDTH_PX)
    scene = Image.fromarray(world[top : top + HEIGHT_PX, left : left + WIDTH_PX])
    pen = ImageDraw.Draw(scene)
    for _ in range(random.integers(3, 12)):
        corners = random.integers(
            (-50, -50), (WIDTH_PX + 50, HEIGHT_PX + 50), (random.integers(3, 7), 2)
        )
        corners = corners[0] + (corners - corners[0]) * random.uniform(0.1, 0.5)
        pen.polygon(
            [tuple(corner) for corner in corners.tolist()],
            fill=tuple(random.integers(0, 256, 3).tolist()),
        )
    top, left = random.integers(0, WORLD_PX - HEIGHT_PX), random.integers(0, WORLD_PX - WIDTH_PX)
    light = np.linspace(*random.integers(-40, 40, 2), WIDTH_PX).astype(np.int16)[None, :, None]
    pixels = np.asarray(scene) + grain[top : top + HEIGHT_PX, left : left + WIDTH_PX] + light
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=int(random.integers(85, 91))
    )
    return buffer.getvalue()


@cache
def draw_world(seed: int) -> np.ndarray:
    """Draw a large image whose amplitudes fall with frequency as in nature (Field, 1987)."""
    random = np.random.default_rng((seed, 1 << 40))
    frequencies = np.hypot(np.fft.fftfreq(WORLD_PX)[:, None], np.fft.rfftfreq(WORLD_PX)[None]).clip(
        1 / WORLD_PX
    )
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.standard_normal((WORLD_PX, WORLD_PX))) / frequencies**1.4
        planes.append(np.fft.irfft2(spectrum, (WORLD_PX, WORLD_PX)))
    # The three channels share a plane: colors of natural scenes are correlated.
    colors = np.stack([planes[0] + 0.3 * plane for plane in planes], axis=2)
    colors = (colors - colors.mean()) / colors.std()
    return (128 + 55 * colors).clip(0, 255).astype(np.uint8)


@cache
def draw_grain(seed: int) -> np.ndarray:
    """Draw sensor noise of three levels, a little of it in color."""
    random = np.random.default_rng((seed, 1 << 41))
    gray = random.standard_normal((WORLD_PX, WORLD_PX, 1)) * 2.5
    return np.round(gray + random.standard_normal((WORLD_PX, WORLD_PX, 3))).astype(np.int16)
